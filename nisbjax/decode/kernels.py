"""Compiled: a forest over the runs of voxels that affinities join, built from rows of bits.

Each row of affinities along z becomes a row of bits, 64 voxels to the word; runs along z are
the nodes of a forest that lives in the label array itself (Rem's algorithm with splicing;
Patwary, Blair and Manne, SEA 2010). Edges that a closed square of other edges implies are
dropped as bits, before any memory is touched. BANIS `inference.py` floods voxel by voxel,
PyTC sweeps labels along the axes at most 256 times.

Kernels that call one another stand in one module: numba's cache does not see a changed
callee in another file. What turns the forest into labels calls none of these (`numbering`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import UInt
from llvmlite import ir
from numba.core import types
from numba.cpython.unsafe import numbers
from numba.extending import intrinsic

# numba turns uint64 with a plain int into float64, so every number here is typed.
_0, _1, _2, _6, _63 = (np.uint64(i) for i in (0, 1, 2, 6, 63))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)

leading_zeros: Callable[..., Any] = numbers.leading_zeros
trailing_zeros: Callable[..., Any] = numbers.trailing_zeros


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at the first call and cached on disk; runs without Python's lock."""
    return numba.njit(nogil=True, cache=True, error_model="numpy")(function)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Part of a kernel, compiled into it."""
    return numba.njit(nogil=True, error_model="numpy")(function)


@no_type_check
@intrinsic
def _compare_64(context, values, start, low, high):
    """Bit i is low < values[start + i] <= high, for 64 values at once, as the CPU likes."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, arguments[0])
        element = context.get_value_type(kind.dtype)
        lanes, index = ir.VectorType(element, 64), ir.IntType(32)
        at = builder.gep(array.data, [arguments[1]])
        at = builder.bitcast(at, lanes.as_pointer())
        found = builder.load(at, align=kind.dtype.bitwidth // 8)

        def everywhere(value):
            nothing = ir.Constant(lanes, ir.Undefined)
            first = builder.insert_element(nothing, value, ir.Constant(index, 0))
            copies = ir.Constant(ir.VectorType(index, 64), [0] * 64)
            return builder.shuffle_vector(first, nothing, copies)

        above = builder.icmp_unsigned(">", found, everywhere(arguments[2]))
        below = builder.icmp_unsigned("<=", found, everywhere(arguments[3]))
        return builder.bitcast(builder.and_(above, below), ir.IntType(64))

    return types.uint64(values, start, values.dtype, values.dtype), generate


@no_type_check
@part
def _pack(values, start, size, low, high, words, at):
    """Bit z of words[at:] is low < values[start + z] <= high, for z < size."""
    whole = size >> _6
    for w in range(whole):
        words[at + w] = _compare_64(values, start + (w << _6), low, high)
    if size & _63:
        last = _0
        for z in range(whole << _6, size):
            value = values[start + z]
            last |= np.uint64((value > low) & (value <= high)) << (z & _63)
        words[at + whole] = last


@no_type_check
@part
def _run_start(joined, row, w, bit):
    """First voxel of the run that holds voxel 64 w + bit of the row at joined[row:].

    Bit z of a row: there is an edge between z - 1 and z.
    """
    starts = ~joined[row + w] & (_ALL >> (_63 - bit))
    while starts == _0:
        w -= _1
        starts = ~joined[row + w]
    return (w << _6) + _63 - np.uint64(leading_zeros(starts))


@no_type_check
@part
def _unite(parent, u, v):
    """Rem's union with splicing; a parent has the lower index, so a root is a first voxel."""
    pu, pv = np.uint64(parent[u]), np.uint64(parent[v])
    while pu != pv:
        if pu > pv:
            parent[u] = pv
            if u == pu:
                return
            u = pu
            pu = np.uint64(parent[u])
        else:
            parent[v] = pu
            if v == pv:
                return
            v = pv
            pv = np.uint64(parent[v])


@no_type_check
@part
def _unite_rows(parent, edges, base, before, joined, row, row_before, w):
    """Unites along the edges of one word between two rows of runs."""
    while edges != _0:
        bit = np.uint64(trailing_zeros(edges))
        edges &= edges - _1
        u = base + _run_start(joined, row, w, bit)
        v = before + _run_start(joined, row_before, w, bit)
        _unite(parent, u, v)


class Rule(NamedTuple):
    """Which affinities are edges, and what a mask takes.

    Attributes:
      low, high: an edge is there where low < bits <= high, as stored.
      destination: edges are stored at the voxel of the higher index.
      masked: there is a mask.
      both: it takes edges at both of their ends.
    """

    low: np.unsignedinteger
    high: np.unsignedinteger
    destination: bool
    masked: bool
    both: bool


class Forest(NamedTuple):
    """Runs of voxels along z, and how they hang together.

    Attributes:
      parent: x*y*z, the forest over the runs' first voxels.
      foreground: x y w, a bit for each voxel with an edge.
      joined: x y w, a bit for each voxel that an edge joins to the one before it on z.
    """

    parent: UInt[np.ndarray, " v"]
    foreground: UInt[np.ndarray, "x y w"]
    joined: UInt[np.ndarray, "x y w"]

    @classmethod
    def over(cls, labels: UInt[np.ndarray, "x y z"]) -> "Forest":
        """A forest in the memory of an array of labels."""
        bits = (*labels.shape[:2], (labels.shape[2] + 63) // 64)
        return cls(
            labels.reshape(-1), np.empty(bits, np.uint64), np.empty(bits, np.uint64)
        )


class PlaneValues(NamedTuple):
    """Some planes of a volume, contiguous: bits of the affinities and bytes of the mask."""

    x: UInt[np.ndarray, "p y z"]
    y: UInt[np.ndarray, "p y z"]
    z: UInt[np.ndarray, "p y z"]
    mask: UInt[np.ndarray, "..."]  # p y z, 0 where masked; empty where there is no mask


@no_type_check
@kernel
def unite_planes(planes, rule, first, inner, forest, carried):
    """Adds planes to a forest.

    A row of eight voxels, its edges to the voxel before it on z (`joined`), and the row
    before it on y with the edges between the two:

        voxel          0  1  2  3  4  5  6  7
        joined         .  1  1  .  .  1  1  1      runs begin at 0, 3, 4
        edges on y     1  1  .  .  .  1  1  .
        joined before  .  1  .  1  1  1  1  1      runs begin at 0, 2

    Edge 0 on y unites runs 0 and 0. Edge 1 closes a square with edge 0 and the two along z
    (voxel 1 is joined to voxel 0 in both rows), so it is dropped as a bit. Edge 5 unites run
    4 with run 2 of the row before; edge 6 closes a square with it and is dropped. Two unions
    remain of five edges.

    Args:
      planes: `PlaneValues`.
      rule: `Rule`.
      first: index of the first of these planes in the volume.
      inner: whether the plane before `first` is in the forest (else a seam is left).
      forest: `Forest`.
      carried: 3 y w, of the last plane: edges along y, affinities along x, mask.
    """
    count, rows, length = planes.z.shape
    low, high = rule.low, rule.high
    nx, ny, nz = np.uint64(forest.joined.shape[0]), np.uint64(rows), np.uint64(length)
    words = np.uint64(forest.joined.shape[2])
    # Flat throughout: a view of each row would cost more than the row.
    parent, carry = forest.parent, carried.reshape(-1)
    foreground, joined = forest.foreground.reshape(-1), forest.joined.reshape(-1)
    ax, ay = planes.x.reshape(-1), planes.y.reshape(-1)
    az, mask = planes.z.reshape(-1), planes.mask.reshape(-1)
    # Of this row and of the one before (in turns, for y).
    hx, hz = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    hy, k = np.zeros(2 * words, np.uint64), np.full(2 * words, _ALL)
    ix_row = np.zeros(2 * words, np.uint64)
    last_word, last_bit = (nz - _1) >> _6, (nz - _1) & _63
    plane = ny * words
    for p in range(np.uint64(count)):
        x = np.uint64(first) + p
        for y in range(ny):
            base, source = (x * ny + y) * nz, (p * ny + y) * nz
            row = (x * ny + y) * words
            now, last = (y & _1) * words, (_1 - (y & _1)) * words
            _pack(ax, source, nz, low, high, hx, _0)
            _pack(ay, source, nz, low, high, hy, now)
            _pack(az, source, nz, low, high, hz, _0)
            for w in range(words):
                joined[row + w], foreground[row + w] = _0, _0
            for z in range(nz):
                parent[base + z] = base + z
            if rule.masked:
                _pack(mask, source, nz, np.uint8(0), np.uint8(255), k, now)
                for w in range(words):
                    hx[w] &= k[now + w]
                    hy[now + w] &= k[now + w]
                    hz[w] &= k[now + w]
            h_above, k_above, ix_above, iy_above = _0, _0, _0, _0
            for w in range(words):
                here = y * words + w
                # Edges between this row's voxels and those before them on z, y and x.
                if rule.destination:
                    alone = hz[w] & _1 if w == _0 else _0
                    if y == _0:
                        alone |= hy[now + w]
                    if x == _0:
                        alone |= hx[w]
                    iz, iy, ix = hz[w], hy[now + w], hx[w]
                    if w == _0:
                        iz &= ~_1
                    if rule.both:
                        iz &= (k[now + w] << _1) | k_above
                        iy &= k[last + w]
                        ix &= carry[_2 * plane + here]
                else:
                    iz = (hz[w] << _1) | h_above
                    alone = _0
                    if w == last_word:
                        alone = hz[w] & (_1 << last_bit)
                        iz &= _ALL >> (_63 - last_bit)
                    if y == ny - _1:
                        alone |= hy[now + w]
                    if x == nx - _1:
                        alone |= hx[w]
                    iy, ix = hy[last + w], carry[plane + here]
                    if rule.both:
                        iz &= k[now + w]
                        iy &= k[now + w]
                        ix &= k[now + w]
                if y == _0:
                    iy = _0
                if p == _0 and not inner:
                    ix = _0
                h_above, k_above = hz[w] >> _63, k[now + w] >> _63
                joined[row + w] = iz
                foreground[row + w] |= alone | iz | (iz >> _1) | iy | ix
                if w != _0 and iz & _1:
                    foreground[row + w - _1] |= _1 << _63
                if y != _0:
                    foreground[row - words + w] |= iy
                if x != _0:
                    foreground[row - plane + w] |= ix
                # A square of edges that lacks one joins its corners all the same.
                if iy:
                    edges = iy & ~(
                        ((iy << _1) | iy_above) & iz & joined[row - words + w]
                    )
                    _unite_rows(
                        parent, edges, base, base - nz, joined, row, row - words, w
                    )
                if ix:
                    edges = ix & ~(
                        ((ix << _1) | ix_above) & iz & joined[row - plane + w]
                    )
                    edges &= ~(ix_row[last + w] & iy & carry[here])
                    before = base - ny * nz
                    _unite_rows(
                        parent, edges, base, before, joined, row, row - plane, w
                    )
                iy_above, ix_above = iy >> _63, ix >> _63
                ix_row[now + w] = ix
                carry[here], carry[plane + here] = iy, hx[w]
                carry[_2 * plane + here] = k[now + w]


@no_type_check
@part
def _attached_root(parent, root):
    while np.uint64(parent[root]) != root:
        parent[root] = parent[np.uint64(parent[root])]
        root = np.uint64(parent[root])
    return root


@no_type_check
@kernel
def join_seam(affinities_x, mask_before, mask_after, rule, x, forest, attached):
    """Joins the slab that begins at plane x with the one before, both flattened there.

    Args:
      affinities_x: y z, plane x - 1, or x where edges are stored at the destination.
      mask_before, mask_after: y z, planes x - 1 and x.
      rule: `Rule`.
      x: first plane of the slab.
      forest: `Forest`.
      attached: room for y z indices of roots that cease to be roots.

    Returns:
      How many roots were attached.
    """
    rows, length = affinities_x.shape
    ny, nz, words = (
        np.uint64(rows),
        np.uint64(length),
        np.uint64(forest.joined.shape[2]),
    )
    parent = forest.parent
    foreground, joined = forest.foreground.reshape(-1), forest.joined.reshape(-1)
    values = affinities_x.reshape(-1)
    stored, other = mask_before.reshape(-1), mask_after.reshape(-1)
    if rule.destination:
        stored, other = other, stored
    h, k = np.zeros(words, np.uint64), np.full(words, _ALL)
    k_other = np.full(words, _ALL)
    count = 0
    for y in range(ny):
        base, row = (np.uint64(x) * ny + y) * nz, (np.uint64(x) * ny + y) * words
        before, row_before = base - ny * nz, row - ny * words
        _pack(values, y * nz, nz, rule.low, rule.high, h, _0)
        if rule.masked:
            _pack(stored, y * nz, nz, np.uint8(0), np.uint8(255), k, _0)
            if rule.both:
                _pack(other, y * nz, nz, np.uint8(0), np.uint8(255), k_other, _0)
        for w in range(words):
            found = h[w] & k[w] & k_other[w]
            foreground[row + w] |= found
            foreground[row_before + w] |= found
            edges = found & ~((found << _1) & joined[row + w] & joined[row_before + w])
            while edges != _0:
                bit = np.uint64(trailing_zeros(edges))
                edges &= edges - _1
                u = base + _run_start(joined, row, w, bit)
                v = before + _run_start(joined, row_before, w, bit)
                u = _attached_root(parent, np.uint64(parent[u]))
                v = _attached_root(parent, np.uint64(parent[v]))
                if u != v:
                    parent[max(u, v)] = min(u, v)
                    attached[count] = max(u, v)
                    count += 1
    return count
