"""Mutex components for many biases: what all of them join is joined once.

A mutex watershed takes an edge where it agrees with all that it took before. Which short edge
comes before which depends on no bias, nor does the order of long ones; `attract` and `repel`
decide by their sum s when a short edge of logit l comes before a long one of logit m
(l + m > s), and each alone from where edges say anything. So for biases in given ranges:

    a long edge surely came before a short one, if it repels,   where l + m < the least s
    ... and may have come before                                where l + m <= the greatest s
    a short edge joins its ends, whatever the biases    where it attracts for all of them, and
        no long edge that may have come before lies between what may be joined to its ends then
    ... and never does, or need not                     where they are one, or a long edge that
        surely came before lies between what is surely joined to its ends then

What every run takes may be taken first: all that a run takes agrees with it, and what a run
refused, or had no need of, it refuses or does not need now. For the same reason edges that no
run needs are left out. What remains is a graph of clusters, and of the edges between two of them
the strongest of either kind, since each later one agrees with it or comes too late.
`mwatershed` and `affogato` begin anew for all biases.

Measured for `attract` 0 to .4 and `repel` .2 to 1: a cluster for 7 voxels of FIB-25 (6 of the
demo's), half an edge a voxel (.75) of six, by a weak network.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Integer, UInt

from nisbjax.decode import (
    contraction_kernels,
    mutex_components,
    mutex_kernels,
    numbering,
)
from nisbjax.decode.contraction_kernels import Forest, Levels
from nisbjax.decode.edge_weights import FEW, Weights, held_values
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex_kernels import Graph
from nisbjax.typing import Affinities, Triple

_SLACK = 4 * mutex_components.STEP  # more than the rounding of two weights moves


@dataclasses.dataclass(frozen=True)
class Biases:
    """Ranges of the two biases, lowest and highest.

    Attributes:
      attract, repel: as `mutex_components`.
    """

    attract: tuple[float, float]
    repel: tuple[float, float]


class EdgesLeft(NamedTuple):
    """Edges between clusters, strongest first; equal ones as `mutex_components` takes them.

    Attributes:
      ends: two clusters each, flat.
      logits: of edges that are equally strong.
      starts: of these among the edges, and the number of all.
    """

    ends: UInt[np.ndarray, " e2"]
    logits: Float64[np.ndarray, " l"]
    starts: Int[np.ndarray, " m"]


class Contracted(NamedTuple):
    """What is left to decide.

    Attributes:
      clusters: [x y z] 1..N in C order of first voxels, 0 = joined with nothing, whatever
        the biases are.
      shorts, longs: edges that may attract, and those that may repel.
    """

    clusters: UInt[np.ndarray, "x y z"]
    shorts: EdgesLeft
    longs: EdgesLeft


def contract(
    affinities: Affinities,
    offsets: Sequence[Triple],
    biases: Biases,
    edges: MaskedEdges,
) -> Contracted:
    """Joins what is joined for all biases; keeps what depends on them.

    Args:
      affinities: [c x y z], of a type in `edge_weights.FEW`.
      offsets: of the channels, in voxels, of either sign; those to the next voxel first.
      biases: their ranges.
      edges: which of them count.
    """
    shape = affinities.shape[1:]
    voxels = math.prod(shape)
    repels = [sum(map(abs, offset)) != 1 for offset in offsets]
    held = mutex_components.logits(held_values(affinities.dtype))
    base = len(held) * np.asarray(repels, np.int64)
    weights = Weights(affinities.view(FEW[affinities.dtype]), np.empty(0), base)
    ranked = np.zeros(2 * len(held), np.int32)
    graph = mutex_components.graph_of(weights, ranked, repels, offsets, edges)
    narrow = 2 * len(offsets) * voxels < 2**32
    signed, wide = (np.int32, np.uint32) if narrow else (np.int64, np.uint64)
    parent = np.full(voxels, np.iinfo(signed).min, signed)
    with np.errstate(invalid="ignore"):
        may_attract = held > biases.attract[0] - _SLACK
        may_repel = held < biases.repel[1] + _SLACK
    shorts, short_levels = _sorted(graph, parent, held, may_attract, wide, short=True)
    longs, long_levels = _sorted(graph, parent, held, may_repel, wide, short=False)
    ends = np.empty(2 * longs.size, wide)
    contraction_kernels.ends_of(longs, graph.steps, ends)
    del longs
    certain, possible = (
        Forest(each, np.zeros(2 * voxels, wide), np.empty(ends.size, wide))
        for each in (parent, parent.copy())
    )
    undecided = np.empty(shorts.size, wide)
    rule = (
        graph.steps,
        biases.attract[1] + _SLACK,
        biases.repel[0] - _SLACK,
        biases.attract[1] + biases.repel[1] + _SLACK,
        biases.attract[0] + biases.repel[0] - _SLACK,
    )
    count = contraction_kernels.decide(
        shorts, short_levels, ends, long_levels, rule, certain, possible, undecided
    )
    undecided = undecided[:count].astype(np.int64)
    clusters, may_join = _numbered(certain, possible)
    short_ends = np.empty(2 * count, wide)
    contraction_kernels.ends_of(shorts[undecided], graph.steps, short_ends)
    every = np.arange(ends.size // 2)
    return Contracted(
        clusters.reshape(shape).astype(np.uint32, copy=False),
        _left(clusters, short_ends, undecided, short_levels),
        _left(clusters, ends, every, long_levels, may_join),
    )


def memory_bytes(dtype: np.dtype, voxels: int, channels: int = 6) -> int:
    """What `contract` needs at most, its input with it.

    Two forests of 12 bytes a voxel, edges of three channels twice, and 4 + 8 + 16 bytes for
    each of those that may repel.
    """
    wide = 4 if 2 * channels * voxels < 2**32 else 8
    needed = channels * np.dtype(dtype).itemsize + wide * (6 + 6)
    return voxels * (needed + 7 * wide * max(channels - 3, 0))


def components(
    left: tuple[EdgesLeft, EdgesLeft], count: int, attract: float, repel: float
) -> Integer[np.ndarray, " n"]:
    """Which clusters two biases join: for each of 0..`count` one that stands for all.

    Args:
      left: `shorts` and `longs` of `Contracted`.
      count: of clusters.
      attract, repel: within the ranges that were contracted.
    """
    shorts, longs = left
    forest = Forest(
        np.full(count + 1, -1, np.int32),
        np.zeros(2 * (count + 1), np.uint32),
        np.empty(longs.ends.size, np.uint32),
    )
    contraction_kernels.settle(
        shorts.ends,
        Levels(mutex_components.weight(shorts.logits, attract, False), shorts.starts),
        longs.ends,
        Levels(mutex_components.weight(longs.logits, repel, True), longs.starts),
        forest,
    )
    return forest.parent


def _sorted(
    graph: Graph,
    parent: np.ndarray,
    held: np.ndarray,
    said: np.ndarray,
    wide: type,
    *,
    short: bool,
) -> tuple[np.ndarray, Levels]:
    """Short or long edges of some values, strongest first, and where each logit begins.

    Short ones make the clusters of one voxel, between which edges count.
    """
    logits, inverse = np.unique(
        -held[said] if short else held[said], return_inverse=True
    )
    ranked = np.zeros(2 * len(held), np.int32)
    ranked[np.flatnonzero(said) + (0 if short else len(held))] = inverse + 1
    graph = graph._replace(ranks=ranked)
    if short:
        mutex_kernels.mark(graph, parent)
        logits = -logits
    every, ranks = (0, len(graph.base)), (1, len(logits))
    counts = np.zeros((2, len(logits)), np.int64)
    mutex_kernels.collect(graph, parent, every, ranks, counts, np.empty(0, wide))
    starts = np.concatenate([[0], np.cumsum(counts.sum(0))])
    edges = np.empty(starts[-1], wide)
    if edges.size:
        place = starts[None, :-1].copy()
        mutex_kernels.collect(graph, parent, every, ranks, place, edges)
    return edges, Levels(logits, starts)


def _numbered(certain: Forest, possible: Forest) -> tuple[np.ndarray, np.ndarray]:
    """Clusters 1..N of voxels, flat, and for each voxel what it may be joined to."""
    alone = possible.parent == -1
    clusters, may_join = (
        forest.parent.view(forest.ring_of.dtype) for forest in (certain, possible)
    )
    for forest in (certain, possible):
        forest.ring_of[: forest.parent.size] = 0
        mutex_kernels.number(forest.parent, forest.ring_of)
    clusters[alone] = 0
    table = np.zeros(int(clusters.max(initial=0)) + 1, clusters.dtype)
    numbering.renumber(clusters, table)
    return clusters, may_join


def _left(
    clusters: np.ndarray,
    ends: np.ndarray,
    order: Int[np.ndarray, " e"],
    levels: Levels,
    may_join: np.ndarray | None = None,
) -> EdgesLeft:
    """The first edge between each two clusters, of those that may be joined.

    Args:
      clusters: of voxels.
      ends: voxels, two each, flat, strongest first.
      order: their positions among those that `levels` divide.
      levels: their strength.
      may_join: what each voxel may be joined to; None where all ends are.
    """
    a, b = clusters[ends[::2]], clusters[ends[1::2]]
    between: Bool[np.ndarray, " e"] = a != b
    if may_join is not None:
        between &= may_join[ends[::2]] == may_join[ends[1::2]]
    a, b, order = a[between], b[between], order[between]
    pairs = np.minimum(a, b).astype(np.uint64) << np.uint64(32) | np.maximum(a, b)
    first = np.sort(np.unique(pairs, return_index=True)[1])
    starts = np.searchsorted(order[first], levels.starts)
    some = np.flatnonzero(np.diff(starts))
    return EdgesLeft(
        np.stack([a[first], b[first]], axis=1).astype(np.uint32).reshape(-1),
        levels.logits[some],
        np.concatenate([starts[some], [len(first)]]),
    )
