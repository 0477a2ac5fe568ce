"""Two-threshold decoding: seeds at a high threshold grow down to a low one, and stay apart.

Thin neurites predict affinities of .5 to .6 where edges between neurites reach .5 too (PyTC
measured both on NISB-LICONN), so no single threshold holds the one without merging by the
other. Here components at the high threshold are seeds, and edges from there down to the
low one are added strongest first, except those that would join two seeds: a seeded
watershed by maximum spanning forest (Meyer; Cousty et al., PAMI 2009) on the affinity graph.

In memory alone: up to `BYTES_PER_VOXEL` for each voxel where all three edges of every voxel
lie between the thresholds, a fifth of it in practice.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import UInt

from nisbjax.decode.connected_components import edge_range, label_affinities
from nisbjax.decode.keep import ImageSource, MaskSource, keep_mask
from nisbjax.decode.kernels import kernel
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.typing import Affinities, Mask

BYTES_PER_VOXEL = 84


@no_type_check
@kernel
def _grow(edges, strides, seeds, parent, large):
    """Joins along edges in their order; two components with seeds stay apart.

    Args:
      edges: 3 * (flat index of the lower voxel) + axis.
      strides: voxels between neighbours, by axis.
      seeds: labels of the seeds, flat, 1..N in C order.
      parent: of the same size, receives the forest.
      large: of the same size; receives whether the component of a root holds a seed.
        Entry 0 of `first` is unused.
    """
    first = np.zeros(parent.size + 1, parent.dtype)
    newest = 0
    for v in range(parent.size):
        label = seeds[v]
        parent[v] = v
        if label > newest:
            newest = label
            first[label] = v
        elif label > 0:
            parent[v] = first[label]
            large[first[label]] |= large[v]
    for edge in edges:
        u, v = edge // 3, edge // 3 + strides[edge % 3]
        while parent[u] != u:
            parent[u] = parent[parent[u]]
            u = parent[u]
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        if u == v or (large[u] and large[v]):
            continue
        low, high = min(u, v), max(u, v)
        parent[high] = low
        large[low] |= large[high]


@no_type_check
@kernel
def _number(parent, foreground, labels):
    """Labels 1..N by first voxels; a parent comes before its children."""
    label = 0
    for v in range(parent.size):
        if not foreground[v]:
            continue
        if parent[v] == v:
            label += 1
            labels[v] = label
        else:
            labels[v] = labels[parent[v]]
    return label


def grow_affinities(
    affinities: Affinities,
    threshold: float,
    low: float,
    *,
    min_seed: int = 100,
    edge_offset: int = 0,
    mask: MaskSource | None = None,
    mask_edges: str = "both",
    threads: int | None = None,
    image: ImageSource | None = None,
) -> UInt[np.ndarray, "x y z"]:
    """Segments at `low` of which none holds two seeds.

    Edges of equal affinity are taken in C order of their lower voxel, then by axis. What no
    seed reaches becomes a segment of its own, as in a plain decode at `low`.

    Args:
      affinities, edge_offset, mask, mask_edges, threads, image: as `label_affinities`.
      threshold: of the seeds.
      low: down to which they grow; at most `threshold`.
      min_seed: voxels of a component at `threshold` that make it a seed; smaller ones join
        freely.

    Returns:
      [x y z] labels 1..N in C order of first voxels, 0 = background.

    Raises:
      InputError: as `label_affinities`, or `low` above `threshold`.
    """
    if not low <= threshold:
        raise InputError(
            f"the low threshold is {low}, the seeds' {threshold}; wanted low <= seeds"
        )
    options = {
        "edge_offset": edge_offset,
        "mask": mask,
        "mask_edges": mask_edges,
        "threads": threads,
        "image": image,
    }
    seeds = label_affinities(affinities, threshold, **options)
    large = np.bincount(seeds.ravel()) >= max(min_seed, 1)
    large[0] = False
    large = large[seeds.ravel()]
    edges = _edges_between(
        affinities, low, threshold, edge_offset, mask, image, mask_edges
    )
    parent = np.empty(seeds.size, np.int64)
    shape = seeds.shape
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    _grow(edges, strides, seeds.reshape(-1), parent, large)
    del edges, seeds
    labels = label_affinities(affinities, low, **options)
    flat = labels.reshape(-1)
    foreground = flat > 0
    _number(parent, foreground, flat)
    return labels


def _edges_between(
    affinities, low, high, edge_offset, mask, image, mask_edges
) -> np.ndarray:
    """3 voxel + axis of the edges with low < affinity <= high, strongest first."""
    shape = affinities.shape[1:]
    keep = keep_mask(mask, image, shape)
    kept = None if keep is None else keep(Box.whole(shape))
    bits, weakest, _ = edge_range(affinities.dtype, low)
    _, strongest, _ = edge_range(affinities.dtype, high)
    weights, edges = [], []
    for axis in range(3):
        values = np.ascontiguousarray(affinities[axis]).view(bits)
        between = (values > weakest) & (values <= strongest)
        if kept is not None:
            between &= _kept_edges(kept, axis, edge_offset, mask_edges)
        weights.append(values[between])
        # The outermost plane has edges that leave the volume.
        coordinates = list(np.nonzero(between))
        coordinates[axis] = coordinates[axis] - edge_offset
        inside = (coordinates[axis] >= 0) & (coordinates[axis] < shape[axis] - 1)
        weights[-1] = weights[-1][inside]
        coordinates = tuple(c[inside] for c in coordinates)
        edges.append(np.ravel_multi_index(coordinates, shape) * 3 + axis)
    edge, weight = np.concatenate(edges), np.concatenate(weights)
    return edge[np.lexsort((edge, -weight.astype(np.int64)))]


def _kept_edges(kept: Mask, axis: int, edge_offset: int, mask_edges: str) -> Mask:
    """Where an affinity of one axis may be an edge, by the voxel that stores it."""
    allowed = kept.copy()
    if mask_edges == "both":
        stored, other = [slice(None)] * 3, [slice(None)] * 3
        stored[axis], other[axis] = slice(0, -1), slice(1, None)
        if edge_offset:
            stored, other = other, stored
        allowed[tuple(stored)] &= kept[tuple(other)]
    return allowed
