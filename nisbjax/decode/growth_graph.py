"""The edges by which labels can come to some voxels, whichever fragments grow.

Labels reach a free voxel through free voxels alone (`contested_growth`). So for a few voxels,
as the nodes of skeletons, growth needs the edges of those components of voxels that may be
free which hold one of them, and nothing else of the volume. PyTC and BANIS score whole
segmentations.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Bool, Int, UInt

from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.contested_growth import weakest_of
from nisbjax.decode.kernels import kernel, part
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.ordered_edges import edges_between
from nisbjax.typing import Affinities


class GrowthGraph(NamedTuple):
    """Edges between some voxels of a volume.

    Attributes:
      voxels: flat, ascending.
      ends: two positions in `voxels` for each edge, flat, strongest first.
      values: bits of each edge.
    """

    voxels: Int[np.ndarray, " v"]
    ends: UInt[np.ndarray, " e2"]
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
    ends = place[np.stack([lower, upper], axis=1)].astype(np.uint32).reshape(-1)
    return GrowthGraph(voxels, ends, found)


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
