"""Centre lines pushed apart until their radii just fit.

Overlapping samples of different neurites repel each other while springs keep each line's
spacing, as in simulated packings of axons (Ginsburger et al. 2019, MEDUSA). We pack until
sections roughly fit rather than until none overlap, since labels are cut where two
neurites are equally near.
"""

import math
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int64

_CELL_NM = 100.0
_FURTHEST_PULL_NM = 9.0

_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")


class Lines(NamedTuple):
    """The samples of centre lines; those of one neurite ignore each other.

    Attributes:
      position: nm; packing moves it.
      radius: nm.
      axis: unit vector along which a profile is flattened.
      flatness: see `growth.Samples`.
      parent: an earlier row, or -1.
      neurite: of each sample.
    """

    position: Float64[np.ndarray, "n 3"]
    radius: Float64[np.ndarray, " n"]
    axis: Float64[np.ndarray, "n 3"]
    flatness: Float64[np.ndarray, " n"]
    parent: Int64[np.ndarray, " n"]
    neurite: Int64[np.ndarray, " n"]


class _Cells(NamedTuple):
    """Samples sorted into cells of space, to find those near one.

    Attributes:
      dims: cells along each axis.
      size: of one, nm.
      of: the cell of each sample.
      first: of each cell, where it begins in `order`; one more for the end.
      order: samples by cell.
    """

    dims: Int64[np.ndarray, "3"]
    size: Float64[np.ndarray, "3"]
    of: Int64[np.ndarray, " n"]
    first: Int64[np.ndarray, " cells_and_1"]
    order: Int64[np.ndarray, " n"]


@no_type_check
@_kernel
def pack(lines, low, high, spacing, sweeps):
    """Moves samples in place; all moves of a sweep follow from the positions before it.

    Args:
      lines: `Lines`; their `position` is changed.
      low: Float64[3], nm, corner of the block that nothing leaves.
      high: Float64[3], nm, the other corner.
      spacing: nm between a sample and its parent, kept by springs.
      sweeps: how many.

    Returns:
      Float64[n]: for each sample the distance [nm] at which another neurite's domain
      begins, measured towards that neurite's samples; inf where none is near.
    """
    position, parent = lines.position, lines.parent
    n = len(position)
    clearance = np.full(n, np.inf)
    push, carried = np.zeros((n, 3)), np.zeros((n, 3))
    weight = np.zeros(n)
    dims, size = np.zeros(3, np.int64), np.zeros(3)
    for a in range(3):
        dims[a] = max(int((high[a] - low[a]) / _CELL_NM), 1)
        size[a] = (high[a] - low[a]) / dims[a]
    for _ in range(sweeps):
        cells = _sort_into_cells(position, low, dims, size)
        _repel(lines, cells, push, clearance, False)
        for _ in range(2):
            _average(push, carried, weight, parent)
        _pull(position, parent, carried, spacing)
        for i in range(n):
            for a in range(3):
                pull = min(max(carried[i, a], -_FURTHEST_PULL_NM), _FURTHEST_PULL_NM)
                moved = position[i, a] + 0.7 * push[i, a] + pull
                position[i, a] = min(max(moved, low[a]), high[a])
    cells = _sort_into_cells(position, low, dims, size)
    _repel(lines, cells, push, clearance, True)
    return clearance


@no_type_check
@_kernel
def _repel(lines, cells, push, clearance, measure):
    """Fills `push` with the mean push on each sample, or else measures clearances."""
    position, radius, axis = lines.position, lines.radius, lines.axis
    flatness, neurite = lines.flatness, lines.neurite
    dims, order, first = cells.dims, cells.order, cells.first
    thickest = 0.0
    # Copied in cell order: what lies near in space then lies near in memory.
    near = np.empty((len(radius), 5))
    for at in range(len(radius)):
        j = order[at]
        thickest = max(thickest, radius[j])
        near[at, 0], near[at, 1] = position[j, 0], position[j, 1]
        near[at, 2], near[at, 3] = position[j, 2], radius[j]
        near[at, 4] = neurite[j]
    for i in order:
        total = 0.0
        push_x = push_y = push_z = 0.0
        c = cells.of[i]
        cz, cy, cx = c % dims[2], c // dims[2] % dims[1], c // (dims[2] * dims[1])
        w = math.ceil((radius[i] + thickest) / _CELL_NM)
        for x in range(max(cx - w, 0), min(cx + w + 1, dims[0])):
            for y in range(max(cy - w, 0), min(cy + w + 1, dims[1])):
                row = (x * dims[1] + y) * dims[2]
                begin = first[row + max(cz - w, 0)]
                end = first[row + min(cz + w + 1, dims[2])]
                for at in range(begin, end):
                    dx = position[i, 0] - near[at, 0]
                    dy = position[i, 1] - near[at, 1]
                    dz = position[i, 2] - near[at, 2]
                    square = dx * dx + dy * dy + dz * dz
                    if square >= (radius[i] + near[at, 3]) ** 2:
                        continue
                    if near[at, 4] == neurite[i]:
                        continue
                    j = order[at]
                    distance = math.sqrt(square) + 1e-6
                    ux, uy, uz = dx / distance, dy / distance, dz / distance
                    ri = _reach(ux, uy, uz, radius[i], axis[i], flatness[i])
                    rj = _reach(ux, uy, uz, radius[j], axis[j], flatness[j])
                    share = rj / (ri + rj)  # the thinner one gives way
                    if measure:
                        clearance[i] = min(clearance[i], distance * (1 - share))
                        continue
                    overlap = ri + rj - distance
                    if overlap > 0:
                        total += overlap
                        weight = overlap * overlap * share
                        push_x += weight * ux
                        push_y += weight * uy
                        push_z += weight * uz
        scale = 1 / total if total > 0 else 0.0
        push[i, 0], push[i, 1], push[i, 2] = (
            push_x * scale,
            push_y * scale,
            push_z * scale,
        )


@no_type_check
@_kernel
def _reach(ux, uy, uz, radius, axis, flatness):
    """A flattened profile's radius in the direction u."""
    along = ux * axis[0] + uy * axis[1] + uz * axis[2]
    return radius / math.sqrt(1 + flatness * along * along)


@no_type_check
@_kernel
def _average(push, carried, weight, parent):
    """Pushes are shared with the neighbours along the line."""
    n = len(parent)
    for i in range(n):
        weight[i] = 2.0
        for a in range(3):
            carried[i, a] = 2 * push[i, a]
    for i in range(n):
        p = parent[i]
        if p >= 0:
            weight[i] += 1
            weight[p] += 1
            for a in range(3):
                carried[i, a] += push[p, a]
                carried[p, a] += push[i, a]
    for i in range(n):
        for a in range(3):
            push[i, a] = carried[i, a] / weight[i]


@no_type_check
@_kernel
def _pull(position, parent, carried, spacing):
    """A spring keeps the spacing, a little smoothing takes kinks out."""
    for i in range(len(parent)):
        for a in range(3):
            carried[i, a] = 0.0
    for i in range(len(parent)):
        p = parent[i]
        if p < 0:
            continue
        square = 1e-9
        for a in range(3):
            square += (position[p, a] - position[i, a]) ** 2
        length = math.sqrt(square)
        pull = 0.02 + 0.15 * (length - spacing) / length
        for a in range(3):
            carried[i, a] += pull * (position[p, a] - position[i, a])
            carried[p, a] -= pull * (position[p, a] - position[i, a])


@no_type_check
@_kernel
def _sort_into_cells(position, low, dims, size):
    n = len(position)
    cell = np.zeros(n, np.int64)
    first = np.zeros(dims[0] * dims[1] * dims[2] + 1, np.int64)
    for i in range(n):
        c = 0
        for a in range(3):
            step = int((position[i, a] - low[a]) / size[a])
            c = c * dims[a] + min(max(step, 0), dims[a] - 1)
        cell[i] = c
        first[c + 1] += 1
    for c in range(1, len(first)):
        first[c] += first[c - 1]
    at = first.copy()
    order = np.zeros(n, np.int64)
    for i in range(n):
        order[at[cell[i]]] = i
        at[cell[i]] += 1
    return _Cells(dims, size, cell, first, order)


@no_type_check
@_kernel
def number_pieces(parent, usable):
    """Connected pieces of the usable samples, 0, 1, ... by first sample; others -1."""
    piece = np.full(len(parent), -1, np.int64)
    count = 0
    for i in range(len(parent)):
        if not usable[i]:
            continue
        if parent[i] >= 0 and usable[parent[i]]:
            piece[i] = piece[parent[i]]
        else:
            piece[i] = count
            count += 1
    return piece
