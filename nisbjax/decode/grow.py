"""Two-threshold decoding: seeds at a high threshold grow down to a low one, and stay apart.

Thin neurites predict affinities of .5 to .6 where edges between neurites reach .5 too (PyTC
measured both on NISB-LICONN), so no single threshold holds the one without merging by the
other. Here components at the high threshold are seeds, and edges from there down to the
low one are added strongest first, except those that would join two seeds: a seeded
watershed by maximum spanning forest (Meyer; Cousty et al., PAMI 2009) on the affinity graph.

In memory alone, and at most `memory_bytes`.
"""

import dataclasses
import math
from typing import no_type_check

import numpy as np
from jaxtyping import UInt

from nisbjax.console.progress import Progress
from nisbjax.decode import contested_growth, numbering
from nisbjax.decode.connected_components import edge_range, label_box
from nisbjax.decode.kernels import kernel
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.ordered_edges import BUCKETS, edges_between
from nisbjax.errors import InputError
from nisbjax.typing import Affinities


@dataclasses.dataclass(frozen=True)
class GrowParameters:
    """The keys of `decode` that growing takes.

    Attributes:
      threshold: of the seeds.
      low_threshold: down to which they grow.
      min_seed: voxels that make one.
      grow_margin: within which two seeds leave a voxel on background; 0 = they never do.
    """

    threshold: float
    low_threshold: float
    min_seed: int = 100
    grow_margin: float = 0.0

    def check(self, dtype: np.dtype) -> None:
        """Refuses what means nothing for affinities of this type.

        Raises:
          InputError: as `check`.
        """
        check(
            dtype, self.threshold, self.low_threshold, self.min_seed, self.grow_margin
        )


def memory_bytes(dtype: np.dtype, voxels: int, margin: float = 0.0) -> int:
    """What growing needs at most, its input with it: every edge between the thresholds.

    Three channels, a mask and its image, the forest, and three edges for each voxel: 25
    bytes a voxel of float16; two thirds of that where few edges lie between. With a margin
    as `contested_growth`, 40 bytes.
    """
    if margin:
        return contested_growth.memory_bytes(dtype, voxels)
    wide = 4 if 3 * voxels < 2**32 else 8
    fixed = 8 * min(BUCKETS, 256 ** np.dtype(dtype).itemsize)
    return fixed + voxels * (3 * np.dtype(dtype).itemsize + 2 + (wide + 1) + 3 * wide)


@no_type_check
@kernel
def _plant(seeds, first, large, parent, holds):
    """A forest with the seeds' voxels below their first ones.

    Args:
      seeds: labels at the high threshold, flat.
      first: voxel of each label.
      large: whether a label is a seed.
      parent: of the size of `seeds`, receives the forest.
      holds: likewise; receives whether the component of a root holds a seed.
    """
    for v in range(seeds.size):
        label = seeds[v]
        parent[v] = first[label] if label > 0 else v
        holds[v] = large[label]


@no_type_check
@kernel
def _grow(edges, strides, parent, holds):
    """Joins along edges in their order; two components with seeds stay apart."""
    for i in range(edges.size):
        edge = np.int64(edges[i])
        u = edge // 3
        v = u + strides[edge % 3]
        while parent[u] != u:
            parent[u] = parent[parent[u]]
            u = np.int64(parent[u])
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = np.int64(parent[v])
        if u == v or (holds[u] and holds[v]):
            continue
        root, other = min(u, v), max(u, v)
        parent[other] = root
        holds[root] |= holds[other]


def _grow_along(
    edges: np.ndarray,
    strides: np.ndarray,
    parent: np.ndarray,
    holds: np.ndarray,
    progress: str,
) -> None:
    with Progress(progress, len(edges), "edges") as told:
        for part in told.parts(edges):
            _grow(part, strides, parent, holds)


@no_type_check
@kernel
def _number_trees(parent, labels):
    """Turns non-zero labels into 1..N by first voxels; a parent comes before its children."""
    label = 0
    for v in range(parent.size):
        if labels[v] == 0:
            continue
        if parent[v] == v:
            label += 1
            labels[v] = label
        else:
            labels[v] = labels[parent[v]]


def grow_affinities(
    affinities: Affinities,
    threshold: float,
    low: float,
    *,
    min_seed: int = 100,
    margin: float = 0.0,
    edges: MaskedEdges | None = None,
    threads: int | None = None,
    progress: str = "",
) -> UInt[np.ndarray, "x y z"]:
    """Segments at `low` of which none holds two seeds.

    Edges of equal affinity are taken in C order of their lower voxel, then by axis. What no
    seed reaches becomes a segment of its own, as in a plain decode at `low`.

    Args:
      affinities, threads: as `label_affinities`.
      threshold: of the seeds.
      low: down to which they grow; at most `threshold`.
      min_seed: voxels of a component at `threshold` that make it a seed; smaller ones join
        freely. With a margin all components are seeds, for they oppose one another.
      margin: above 0, a voxel that two seeds reach by bottlenecks that differ by less stays
        background, and so does what no seed reaches (`contested_growth`).
      edges: which of them count; all, stored at their source, where None.
      progress: what the log calls the work, as it goes on; "" to say nothing.

    Returns:
      [x y z] labels 1..N in C order of first voxels, 0 = background.

    Raises:
      InputError: as `label_affinities`, or `low` above `threshold`.
    """
    check(affinities.dtype, threshold, low, min_seed, margin)
    edges = edges or MaskedEdges()
    shape = affinities.shape[1:]
    edges.require_shape(shape)
    wide = np.uint32 if math.prod(shape) < 2**32 else np.uint64
    seeds, count = label_box(affinities, threshold, edges, threads=threads, dtype=wide)
    voxels = seeds.size
    if voxels == 0:
        return seeds
    if margin:
        found = contested_growth.contested_growth(
            affinities, seeds, low, margin, edges=edges, progress=progress
        )
        numbering.renumber(found.reshape(-1), np.zeros(count + 1, seeds.dtype))
        return found
    parent = np.empty(voxels, seeds.dtype)
    holds = np.empty(voxels, bool)
    first, size = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    numbering.measure(seeds.reshape(-1), first, size)
    large = size >= max(min_seed, 1)
    large[0] = False
    _plant(seeds.reshape(-1), first, large, parent, holds)
    del seeds
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    bits, weakest, _ = edge_range(affinities.dtype, low)
    _, strongest, _ = edge_range(affinities.dtype, threshold)
    values = np.ascontiguousarray(affinities[:3]).view(bits)
    ordered = edges_between(values, weakest, strongest, edges)
    del values
    _grow_along(ordered, strides, parent, holds, progress)
    del ordered, holds
    labels, _ = label_box(affinities, low, edges, threads=threads, dtype=wide)
    _number_trees(parent, labels.reshape(-1))
    return labels


def check(
    dtype: np.dtype, threshold: float, low: float, min_seed: int, margin: float = 0.0
) -> None:
    """Refuses parameters that mean nothing.

    Raises:
      InputError: a threshold or a margin outside [0, 1], `low` above `threshold`, or no
        size.
    """
    edge_range(dtype, threshold)
    edge_range(dtype, low)
    if not low <= threshold:
        raise InputError(
            f"decode.low_threshold is {low}, decode.threshold (of the seeds) {threshold}; "
            "wanted low_threshold <= threshold"
        )
    if min_seed < 0:
        raise InputError(f"decode.min_seed is {min_seed}; wanted 0 or more voxels")
    if not 0 <= margin <= 1:
        raise InputError(f"decode.grow_margin is {margin}; wanted a number in [0, 1]")
