"""Labels grow into background, which stays where two of them come equally near.

A label reaches a voxel by the path whose weakest edge is strongest (its bottleneck, Cousty et
al., PAMI 2009), through background alone. Each free voxel takes the label that reaches it
best, unless another one reaches it within a margin: there it is contested, and a guess would
merge two neurites. `grow` and every seeded watershed (`waterz`, scikit-image) give it away.

Edges are taken strongest first, as Kruskal does: what is joined so far is reached by the
same labels, so a component knows none, one, or that there are two. Three free voxels along
z between labels 1 and 2, margin .1:

    affinity      1 -.9- a -.8- b -.6- c -.75- 2
    .9            a: 1 at .9
    .8            b: 1 at .8
    .75           c: 2 at .75
    .6            1 meets 2: a, b, c are reached by the other one at .6, all .15 or more
                  behind: 1 1 1 2 2. With a margin of .2 b and c were contested: 1 1 0 0 2.

In memory: at most 28 bytes a voxel beside affinities and labels.
"""

from typing import Any, no_type_check

import numpy as np

from nisbjax.console.progress import Progress
from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.kernels import kernel, part
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.ordered_edges import BUCKETS, edges_between
from nisbjax.errors import InputError
from nisbjax.typing import Affinities, Labels


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
@part
def _reach(after, label, best, root, name, value):
    """Its first label reaches a component."""
    v = root
    while True:
        label[v], best[v] = name, value
        v = np.int64(after[v])
        if v == root:
            return


@no_type_check
@part
def _contest(after, best, root, value, margin):
    """A second label reaches a component; what it comes close to in is given up."""
    v = root
    while True:
        if np.float64(best[v]) - value < margin:
            best[v] = -1
        v = np.int64(after[v])
        if v == root:
            return


@no_type_check
@kernel
def _grow(edges, values, real, rule, label, parent, after, best):
    """Lets labels grow along edges in their order.

    Args:
      edges: 3 voxel + axis, strongest first.
      values: bits of the affinities, flat.
      real: the numbers that bits stand for; or the affinities themselves, flat.
      rule: steps between neighbours on each axis; whether edges are stored at their upper
        voxel; bits, of which a label that comes by no more is not taken; the margin.
      label: of each voxel; grows.
      parent: of each free voxel, -(voxels) at a root; of a labelled one the lowest number.
      after: the next voxel of each one's component, in a ring; -1 at the root of one that
        two labels reach.
      best: bottleneck of each free voxel's label; -1 where it is contested or too weak.
    """
    steps, destination, low, margin = rule
    voxels = parent.size
    by_position = real.size == values.size
    fixed = np.iinfo(parent.dtype).min
    for i in range(edges.size):
        edge = np.int64(edges[i])
        axis = edge % 3
        u = edge // 3
        v = u + steps[axis]
        position = axis * voxels + (v if destination else u)
        bits = values[position]
        value = np.float64(real[position if by_position else np.int64(bits)])
        if parent[u] == fixed:
            u, v = v, u
        a = _root(parent, u)
        if parent[v] == fixed:
            if after[a] < 0:
                continue
            if label[a] == 0:
                _reach(after, label, best, a, label[v], value if bits > low else -1)
            elif label[a] != label[v]:
                _contest(after, best, a, value, margin)
                after[a] = -1
            continue
        b = _root(parent, v)
        if a == b or (after[a] < 0 and after[b] < 0):
            continue
        if (
            after[a] < 0
            or after[b] < 0
            or (label[a] != label[b] and label[a] != 0 and label[b] != 0)
        ):
            for c in (a, b):
                if after[c] >= 0:
                    _contest(after, best, c, value, margin)
                    after[c] = -1
            continue
        if label[a] != label[b]:
            reached, free = (a, b) if label[a] != 0 else (b, a)
            _reach(
                after, label, best, free, label[reached], value if bits > low else -1
            )
        if parent[a] > parent[b]:
            a, b = b, a
        parent[a] += parent[b]
        parent[b] = a
        after[a], after[b] = after[b], after[a]


def contested_growth(
    affinities: Affinities,
    labels: Labels,
    low: float,
    margin: float,
    *,
    edges: MaskedEdges | None = None,
    progress: str = "",
) -> Labels:
    """Labels as before, grown into background down to `low` where they are not contested.

    The result depends on no order of equal edges: where two labels come by equal bottlenecks
    the voxel is contested.

    Args:
      affinities: [c x y z], channels 0-2 for the neighbours on x, y, z; float16, float32, or
        uint8 meaning value / 255 (in single precision). Only values above 0 are edges.
      labels: [x y z], 0 = background. All of them take part, however small.
      low: a label is taken whose bottleneck exceeds this.
      margin: by which the bottleneck of any other label must be less, at least.
      edges: which of them count; all, stored at their source, where None.
      progress: what the log calls the work, as it goes on; "" to say nothing.

    Returns:
      [x y z] labels, of the same type.

    Raises:
      InputError: another type of affinities, `low` outside [0, 1], a margin outside (0, 1],
        or labels or a mask of another shape.
    """
    check(affinities.dtype, low, margin)
    shape = affinities.shape[1:]
    if labels.shape != shape:
        raise InputError(
            f"labels have shape {labels.shape}, affinities {shape}; wanted the same"
        )
    edges = edges or MaskedEdges()
    edges.require_shape(shape)
    dtype = affinities.dtype
    bits, taken, strongest = edge_range(dtype, low)
    weakest = weakest_of(dtype, low, margin)
    values = np.ascontiguousarray(affinities[:3]).view(bits)
    label = labels.reshape(-1).copy()
    ordered = edges_between(values, weakest, strongest, edges, label)
    voxels = label.size
    signed = np.int32 if voxels < 2**31 else np.int64
    parent = np.where(label == 0, signed(-1), np.iinfo(signed).min)
    after = np.arange(voxels, dtype=signed)
    best = np.full(voxels, -1, np.float32)
    steps = np.array([shape[1] * shape[2], shape[2], 1])
    rule = (steps, bool(edges.edge_offset), taken, float(margin))
    flat, real = values.reshape(-1), _real(values)
    with Progress(progress, len(ordered), "edges") as told:
        for part_of in told.parts(ordered):
            _grow(part_of, flat, real, rule, label, parent, after, best)
    label[(best < 0) & (parent != np.iinfo(signed).min)] = 0
    return label.reshape(shape)


def weakest_of(dtype: np.dtype, low: float, margin: float) -> Any:
    """Bits of affinities that are too low to bring a label, or to contest one."""
    near = low - margin  # what comes by less contests nothing
    return edge_range(dtype, max(near - 2.0**-10, 0.0))[1]  # less than any rounding


def check(dtype: np.dtype, low: float, margin: float) -> None:
    """Refuses parameters that mean nothing.

    Raises:
      InputError: `low` outside [0, 1], or a margin outside (0, 1].
    """
    edge_range(dtype, low)
    if not 0 < margin <= 1:
        raise InputError(
            f"the margin of contested growth is {margin}; wanted more than 0 and at most 1"
        )


def memory_bytes(dtype: np.dtype, voxels: int) -> int:
    """What growth needs at most, affinities and labels with it.

    Labels twice, trees, rings, bottlenecks and every edge of a free voxel: 38 bytes a voxel
    of float16.
    """
    wide = 4 if 3 * voxels < 2**32 else 8
    fixed = 8 * min(BUCKETS, 256 ** np.dtype(dtype).itemsize)
    return fixed + voxels * (3 * np.dtype(dtype).itemsize + 2 + 4 + wide * 7)


def _real(values: np.ndarray) -> np.ndarray:
    """What bits stand for, in single precision; the values themselves where they are."""
    if values.dtype == np.uint8:
        return (np.arange(256) / 255).astype(np.float32)
    if values.dtype == np.uint16:
        every = np.arange(1 << 16, dtype=np.uint16)
        return every.view(np.float16).astype(np.float32)
    return values.reshape(-1).view(np.float32)
