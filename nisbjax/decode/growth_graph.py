"""The edges by which labels can come to some voxels, whichever fragments grow.

Labels reach a free voxel through free voxels alone (`contested_growth`). So for a few voxels,
as the nodes of skeletons, growth needs the edges of those components of voxels that may be
free which hold one of them, and nothing else of the volume. The labels that come to a voxel are found
from the voxel: a search that takes the strongest edge next (Prim) meets them in the order of their
bottlenecks, and ends where a second one is too far behind, which is near. PyTC and BANIS score whole
segmentations.
"""

import heapq
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Bool, Int, UInt

from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.contested_growth import weakest_of
from nisbjax.decode.edge_weights import held_values
from nisbjax.decode.kernels import kernel, part
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.ordered_edges import edges_between
from nisbjax.typing import Affinities


class GrowthGraph(NamedTuple):
    """Edges between some voxels of a volume.

    Attributes:
      voxels: flat, ascending.
      first: of each voxel among the edges, and their number; an edge is there from each of
        its ends.
      others: position in `voxels` of the other end of each edge.
      values: its bits.
    """

    voxels: Int[np.ndarray, " v"]
    first: Int[np.ndarray, " w"]
    others: UInt[np.ndarray, " e"]
    values: UInt[np.ndarray, " e"]


def growth_graph(
    affinities: Affinities,
    fixed: Bool[np.ndarray, "x y z"],
    wanted: Int[np.ndarray, " n"],
    weakest: tuple[float, float],
    edges: MaskedEdges,
) -> GrowthGraph:
    """All edges by which a label can come to some voxels.

    Args:
      affinities: [3 x y z], of the neighbours on x, y, z; float16 or uint8.
      fixed: voxels that have a label in any case.
      wanted: voxels, flat; those that are fixed need no edge.
      weakest: the lowest `low` and the greatest margin of `contested_growth`.
      edges: which of them count.
    """
    bits, _, strongest = edge_range(affinities.dtype, 0.0)
    values = np.ascontiguousarray(affinities).view(bits)
    least = weakest_of(affinities.dtype, *weakest)
    fixed = fixed.reshape(-1)
    ordered = edges_between(values, least, strongest, edges, fixed)
    _, _, ny, nz = values.shape
    steps = np.array([ny * nz, nz, 1])
    signed = np.int32 if fixed.size < 2**31 else np.int64
    parent = np.full(fixed.size, -1, signed)
    kept = _reaching(ordered, steps, fixed, wanted, parent)
    ordered = ordered[:kept].astype(np.int64)
    axis, lower = ordered % 3, ordered // 3
    upper = lower + steps[axis]
    stored = upper if edges.edge_offset else lower
    found = values.reshape(3, -1)[axis, stored]
    place = np.zeros(fixed.size, signed)
    for voxels in (lower, upper, wanted):
        place[voxels] = 1
    voxels = np.flatnonzero(place)
    place[voxels] = np.arange(len(voxels))
    ends = place[np.stack([lower, upper], axis=1)].astype(np.uint32)
    first = np.zeros(len(voxels) + 1, np.int64)
    np.cumsum(np.bincount(ends.reshape(-1), minlength=len(voxels)), out=first[1:])
    others = np.empty(ends.size, np.uint32)
    of_edges = np.empty(ends.size, found.dtype)
    _sort(ends, found, first[:-1].copy(), others, of_edges)
    return GrowthGraph(voxels, first, others, of_edges)


def labels_at(
    wanted: Int[np.ndarray, " n"],
    graph: GrowthGraph,
    fragment: Int[np.ndarray, " v"],
    named: UInt[np.ndarray, " f"],
    dtype: np.dtype,
    rule: tuple[float, float],
) -> UInt[np.ndarray, " n"]:
    """The labels that voxels have after `contested_growth`.

    Args:
      wanted: their positions in the graph.
      graph: with all edges by which labels can come to them.
      fragment: of each voxel of the graph.
      named: the label of each fragment, 0 = free.
      dtype: of the affinities.
      rule: `low` and margin.
    """
    low, margin = rule
    with np.errstate(invalid="ignore"):  # NaN, which is no edge's
        real = held_values(dtype).astype(np.float32)
    found = np.zeros(len(wanted), named.dtype)
    bits = np.int64(edge_range(dtype, low)[1])
    _search(wanted, graph[1:], real, fragment, named, (bits, float(margin)), found)
    return found


@no_type_check
@part
def _push(heap, graph, v):
    """The edges of a voxel, strongest first out: the lowest number."""
    first, others, values = graph
    for k in range(first[v], first[v + 1]):
        weak = np.int64(0xFFFF) - np.int64(values[k])
        heapq.heappush(heap, weak << np.int64(32) | np.int64(others[k]))


@no_type_check
@kernel
def _search(wanted, graph, real, fragment, named, rule, found):
    """Searches from each wanted voxel for the label that comes best, and for a second one.

    Args:
      wanted, fragment, named: as `labels_at`.
      graph: `first`, `others` and `values` of `GrowthGraph`.
      real: the numbers that bits stand for.
      rule: bits, of which a label that comes by no more is not taken; the margin.
      found: receives the labels.
    """
    low, margin = rule
    seen = np.zeros(fragment.size, np.int64)  # by which search; -1 where no label comes
    for n in range(wanted.size):
        v = np.int64(wanted[n])
        label = named[fragment[v]]
        if label != 0 or seen[v] == -1:
            found[n] = label
            continue
        heap = [np.int64(0) for _ in range(0)]
        reached = [v]
        seen[v] = n + 1
        _push(heap, graph, v)
        weakest = np.int64(0xFFFF)  # bits, of the path so far
        best = 0.0
        contested = False
        while len(heap) > 0:
            edge = heapq.heappop(heap)
            u = edge & np.int64(0xFFFFFFFF)
            if seen[u] == n + 1:
                continue
            weakest = min(weakest, np.int64(0xFFFF) - (edge >> np.int64(32)))
            value = np.float64(real[weakest])
            if (weakest <= low) if label == 0 else (best - value >= margin):
                break
            other = named[fragment[u]]
            if other == 0:
                seen[u] = n + 1
                reached.append(u)
                _push(heap, graph, u)
            elif label == 0:
                label, best = other, value
            elif other != label:
                contested = True
                break
        if label == 0:
            for u in reached:
                seen[u] = -1  # what is joined to it above `low` finds none either
        found[n] = 0 if contested else label


@no_type_check
@kernel
def _sort(ends, values, place, others, of_edges):
    """Puts edges beside one another that have an end in common.

    Args:
      ends: [e 2], positions of voxels.
      values: of the edges.
      place: where the next edge of each voxel goes; advanced.
      others, of_edges: receive the other end, and the value, of each edge of each end.
    """
    for i in range(values.size):
        for side in range(2):
            at = place[ends[i, side]]
            others[at] = ends[i, 1 - side]
            of_edges[at] = values[i]
            place[ends[i, side]] = at + 1


@no_type_check
@part
def _root(parent, v):
    while parent[v] >= 0:
        above = np.int64(parent[v])
        if parent[above] >= 0:
            parent[v] = parent[above]
        v = above
    return v


@no_type_check
@kernel
def _reaching(edges, steps, fixed, wanted, parent):
    """Moves the edges of components with a wanted voxel to the front, in their order.

    Args:
      edges: 3 voxel + axis.
      steps: between neighbours on each axis.
      fixed: voxels that join no component.
      wanted: voxels.
      parent: of each voxel, -1; at a root -(voxels).

    Returns:
      How many there are.
    """
    for i in range(edges.size):
        edge = np.int64(edges[i])
        u = edge // 3
        v = u + steps[edge % 3]
        if fixed[u] or fixed[v]:
            continue
        a, b = _root(parent, u), _root(parent, v)
        if a == b:
            continue
        if parent[a] > parent[b]:
            a, b = b, a
        parent[a] += parent[b]
        parent[b] = a
    marked = np.zeros(parent.size, np.bool_)
    for i in range(wanted.size):
        if not fixed[wanted[i]]:
            marked[_root(parent, np.int64(wanted[i]))] = True
    kept = 0
    for i in range(edges.size):
        edge = np.int64(edges[i])
        u = edge // 3
        if fixed[u]:
            u += steps[edge % 3]
        if marked[_root(parent, u)]:
            edges[kept] = edges[i]
            kept += 1
    return kept
