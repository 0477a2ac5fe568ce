"""Background goes to the fragment that reaches it best, so that neighbours touch.

A seeded watershed by maximum spanning forest (Meyer; Cousty et al., PAMI 2009): as
`contested_growth`, but what two labels reach equally well goes to the one whose edge comes
first. Not a segmentation: it says where fragments touch, and how strongly. waterz and `elf`
fill a volume in this way before they agglomerate, and keep it.

    affinity      1 -.9- a -.4- b -.4- c -.8- 2      1 1 1 2 2: of equal edges a-b comes first
"""

from typing import no_type_check

import numpy as np

from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.kernels import kernel, part
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.ordered_edges import edges_between
from nisbjax.typing import Affinities, Labels


@no_type_check
@part
def _root(parent, v):
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = np.int64(parent[v])
    return np.int64(v)


@no_type_check
@kernel
def _spread(edges, steps, label, parent):
    """Joins free components along edges in their order, until each has a label.

    Args:
      edges: 3 voxel + axis, strongest first.
      steps: between neighbours on each axis.
      label: of each voxel; receives those that reach free ones.
      parent: of each voxel, itself; receives the forest of free components.
    """
    free = label == 0
    for i in range(edges.size):
        edge = np.int64(edges[i])
        u = edge // 3
        v = u + steps[edge % 3]
        a, b = _root(parent, u), _root(parent, v)
        if a == b or (label[a] != 0 and label[b] != 0):
            continue
        if label[a] == 0:
            a, b = b, a
        parent[b] = a  # a root with a label stays one
    for v in range(label.size):
        if free[v]:
            label[v] = label[_root(parent, v)]


def territories(
    affinities: Affinities,
    labels: Labels,
    low: float,
    *,
    edges: MaskedEdges | None = None,
) -> Labels:
    """Labels as before, and that which reaches each background voxel best.

    Args:
      affinities: [c x y z], channels 0-2 for the neighbours on x, y, z; float16, float32, or
        uint8 meaning value / 255.
      labels: [x y z], 0 = background.
      low: down to which labels reach, in [0, 1].
      edges: which of them count; all, stored at their source, where None.

    Returns:
      [x y z] labels, of the same type. Equal edges are taken in C order of their lower voxel,
      then by axis.

    Raises:
      InputError: another type of affinities, `low` outside [0, 1], or a mask of another shape.
    """
    shape = affinities.shape[1:]
    bits, weakest, strongest = edge_range(affinities.dtype, low)
    edges = edges or MaskedEdges()
    edges.require_shape(shape)
    label = labels.reshape(-1).copy()
    if not label.size:
        return label.reshape(shape)
    values = np.ascontiguousarray(affinities[:3]).view(bits)
    ordered = edges_between(values, weakest, strongest, edges, label)
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    parent = np.arange(label.size, dtype=np.int32 if label.size < 2**31 else np.int64)
    _spread(ordered, steps, label, parent)
    return label.reshape(shape)
