"""Mutex watershed of a volume in memory: the strongest evidence first, for or against.

Wolf et al., "The Mutex Watershed: Efficient, Parameter-Free Image Partitioning" (ECCV 2018;
PAMI 2020). Edges are taken by falling |weight|: an attractive one joins two clusters unless
they are kept apart, a repulsive one keeps them apart from then on. `affogato` and
`mwatershed` sort all edges of a volume by comparing and hold a set of partners for each
cluster (505 bytes a voxel as measured). Here stored values are ranked through a table, edges
are sorted by counting, as many at a time as there are voxels, those that say nothing never;
and the partners are rings of edges (`mutex_kernels`).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int32, Integer, UInt

from nisbjax.console.progress import Progress
from nisbjax.decode import mutex_kernels
from nisbjax.decode.edge_weights import Weights, ranks, weights_of
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex_kernels import Clusters, Graph
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import MaskSource
from nisbjax.typing import Affinities, Triple

Seeds = Integer[np.ndarray, "seeds_x seeds_y seeds_z"]  # of the volume's shape

_CLIP = 1e-3  # a logit of more than 6.9 is no better evidence
_ROOM = 2  # edges that are sorted at once, for each voxel
STEP = 2.0**-20  # of weights: what a machine's logarithm rounds decides no order


def mutex_components(
    affinities: Affinities,
    offsets: Sequence[Triple],
    *,
    attract: float = 0.2,
    repel: float = 0.8,
    strides: Triple = (1, 1, 1),
    seeds: Seeds | None = None,
    mask: MaskSource | None = None,
    edges: MaskedEdges | None = None,
) -> UInt[np.ndarray, "x y z"]:
    """Segments that short edges make and long edges keep apart.

    With l = log(p / (1 - p)), p clipped to [.001, .999], an edge to the next voxel along an
    axis attracts by max(l - attract, 0), any other repels by max(repel - l, 0). Weights are
    rounded to 2^-20. Equal ones are taken in order of their channels, then in C order of the
    voxels at which they are stored; the order of `mwatershed` for equal ones is that of an
    unstable sort. Four voxels along z, one short and one long channel:

        (0, 0, 1)   p = .9  .6  .8   -     l = 2.20  0.41  1.39    attract 2.00  0.21  1.19
        (0, 0, 2)   p = .5  .2   -   -     l = 0.00 -1.39          repel   0.80  2.19

    2.19 keeps 1 and 3 apart; 2.00 joins 0 and 1; 1.19 joins 2 and 3, so 0 and 1 are apart
    from both; 0.80 says so again; 0.21 would join 1 and 2, and comes too late: 1 1 2 2.

    Args:
      affinities: [c x y z], one channel for each offset; float16, uint8 (value / 255), or
        float32 (ranked by sorting, in about 330 bytes a voxel). NaN says nothing.
      offsets: of the channels, in voxels, of either sign.
      attract: logit above which short edges attract.
      repel: logit below which the others repel.
      strides: repulsive edges count where they are stored at multiples of these only.
      seeds: [x y z], 0 = none; voxels of one seed are one, two seeds stay apart.
      mask: [x y z], 0 = masked: none of its edges counts; or a specification.
      edges: in place of a mask, which edges count and where they are stored.

    Returns:
      [x y z] labels 1..N in C order of first voxels, 0 = no attraction at all and no seed;
      uint32, or uint64 where the volume has 2^32 voxels or more. A voxel whose attraction
      came too late is a segment of its own.

    Raises:
      InputError: offsets, biases, strides or seeds that mean nothing, another dtype, or a
        mask of another shape.
    """
    for name, value in (("attract", attract), ("repel", repel)):
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}; wanted a finite logit")

    def weigh(values: np.ndarray, repels: bool) -> np.ndarray:
        return weight(logits(values), repel if repels else attract, repels)

    repels = [sum(map(abs, offset)) != 1 for offset in offsets]
    edges = MaskedEdges.of(edges, mask)
    return components(
        weights_of(affinities, repels, weigh),
        repels,
        offsets,
        edges,
        strides=strides,
        seeds=seeds,
    )


def logits(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """What affinities say, clipped; NaN stays."""
    with np.errstate(invalid="ignore"):
        p = np.clip(values, _CLIP, 1 - _CLIP)
        return np.log(p / (1 - p))


def weight(
    logit: Float64[np.ndarray, " n"], bias: float, repels: bool
) -> Float64[np.ndarray, " n"]:
    """How much edges say: `repel` less their logits, or those less `attract`."""
    weights = bias - logit if repels else logit - bias
    return np.round(weights / STEP) * STEP


def memory_bytes(dtype: np.dtype, voxels: int, channels: int = 6) -> int:
    """What the components of three short channels and the others need, their input with it.

    Trees and rings 12 bytes a voxel, edges 8, and 12 for each channel that repels: 56 for
    six channels, if every long edge repels, and their input of 12 in float16. float32 is
    ranked by sorting.
    """
    wide = 4 if 2 * channels * voxels < 2**32 else 8
    itemsize = np.dtype(dtype).itemsize
    needed = channels * itemsize + wide * (3 + _ROOM + 3 * max(channels - 3, 0))
    if itemsize == 4:
        needed += 40 * channels
    return voxels * needed


def components(
    weights: Weights,
    repels: Sequence[bool],
    offsets: Sequence[Triple],
    edges: MaskedEdges,
    *,
    strides: Triple = (1, 1, 1),
    seeds: Seeds | None = None,
    progress: str = "",
) -> UInt[np.ndarray, "x y z"]:
    """As `mutex_components`, of weights.

    Args:
      weights: of the edges.
      repels: whether a channel does.
      offsets, edges, strides, seeds: as there.
      progress: what the log calls the work, as it goes on; "" to say nothing.

    Raises:
      InputError: as there.
    """
    shape = weights.values.shape[1:]
    _check(weights.values.shape, offsets, strides, seeds)
    edges.require_shape(shape)
    voxels = math.prod(shape)
    if voxels == 0:
        return np.zeros(shape, np.uint32)
    graph = graph_of(weights, ranks(weights), repels, offsets, edges, strides)
    narrow = 2 * len(offsets) * voxels < 2**32
    signed, wide = (np.int32, np.uint32) if narrow else (np.int64, np.uint64)
    parent = np.full(voxels, np.iinfo(signed).min, signed)
    seeded = _plant(seeds, parent)
    mutex_kernels.mark(graph, parent)
    labels = _take_all(graph, parent, seeded, wide, progress)
    return labels.reshape(shape).astype(
        np.uint32 if voxels < 2**32 else np.uint64, copy=False
    )


def graph_of(
    weights: Weights,
    ranked: Int32[np.ndarray, " w"],
    repels: Sequence[bool],
    offsets: Sequence[Triple],
    edges: MaskedEdges,
    strides: Triple = (1, 1, 1),
) -> Graph:
    """The edges of a volume, as the kernels take them.

    Args:
      weights: of which the values are taken.
      ranked: of each weight, 1 for what comes first, and so on; 0 says nothing.
      repels, offsets, edges, strides: as `components`.
    """
    shape = weights.values.shape[1:]
    sign = -1 if edges.edge_offset else 1
    mask = edges.mask_of(Box.whole(shape))
    reach = sign * np.asarray(offsets, np.int64)
    return Graph(
        _fixed(weights.values),
        ranked,
        weights.base,
        np.asarray(repels, bool),
        reach,
        reach @ (shape[1] * shape[2], shape[2], 1),
        np.asarray(strides, np.int64),
        _fixed(np.empty((0, 0, 0), bool) if mask is None else mask),
        edges.both,
    )


def _take_all(
    graph: Graph, parent: np.ndarray, seeded: np.ndarray, wide: type, progress: str
) -> np.ndarray:
    """Takes the edges of a few ranks at a time; returns the labels, flat."""
    channels, voxels = len(graph.base), parent.size
    every = (0, channels)
    strongest = int(graph.ranks.max())
    counts = np.zeros((2, strongest), np.int64)
    mutex_kernels.collect(
        graph, parent, every, (1, strongest), counts, np.empty(0, wide)
    )
    # Repulsion that is weaker than all attraction comes too late.
    attractive = np.flatnonzero(counts[0])
    counts = counts[:, : attractive[-1] + 1 if len(attractive) else 0]
    rings = np.empty(3 * counts[1].sum(), wide)
    ring_of = np.zeros(2 * voxels, wide)
    clusters = Clusters(parent, ring_of, rings, seeded)
    buffer, used = np.empty(min(_ROOM * voxels, counts.sum()), wide), 0
    counts = counts.sum(0)
    with Progress(progress, int(counts.sum()), "edges") as told:
        for first, last in _batches(counts, _ROOM * voxels):
            # One rank may have more: then channel by channel.
            alone = counts[first : last + 1].sum() > _ROOM * voxels
            parts = [(c, c + 1) for c in range(channels)] if alone else [every]
            for part in parts:
                place = np.zeros((1, last - first + 1), np.int64)
                if not alone:
                    place[0, 1:] = np.cumsum(counts[first:last])
                ranks = (first + 1, last + 1)
                mutex_kernels.collect(graph, parent, part, ranks, place, buffer)
                size = place[0, -1]
                for edges in told.parts(buffer[:size]):
                    used = mutex_kernels.take(
                        edges, graph.steps, graph.repels, clusters, used
                    )
    ring_of[:voxels] = 0
    mutex_kernels.number(parent, ring_of)
    return parent.view(wide)


def _batches(counts: np.ndarray, room: int) -> list[tuple[int, int]]:
    """First and last positions of consecutive counts that fit into the room together."""
    batches, first, size = [], 0, 0
    for i, count in enumerate(counts.tolist()):
        if size and size + count > room:
            batches.append((first, i - 1))
            first, size = i, 0
        size += count
    if size:
        batches.append((first, len(counts) - 1))
    return batches


def _plant(seeds: Seeds | None, parent: np.ndarray) -> np.ndarray:
    """Makes one cluster of the voxels of each seed; returns whether a root holds one."""
    if seeds is None:
        return np.empty(0, bool)
    seeded = np.zeros(parent.size, bool)
    flat = seeds.reshape(-1)
    voxels = np.flatnonzero(flat)
    if voxels.size:
        _, first, inverse, size = np.unique(
            flat[voxels], return_index=True, return_inverse=True, return_counts=True
        )
        roots = voxels[first]
        parent[voxels] = roots[inverse]
        parent[roots] = -size
        seeded[roots] = True
    return seeded


def _check(
    shape: tuple[int, ...],
    offsets: Sequence[Triple],
    strides: Triple,
    seeds: Seeds | None,
) -> None:
    if len(offsets) != shape[0]:
        raise InputError(
            f"affinities have {shape[0]} channels for {len(offsets)} offsets; wanted one "
            "offset for each channel"
        )
    if not all(any(offset) for offset in offsets):
        raise InputError(
            f"offsets are {tuple(offsets)}; wanted edges between two voxels, none (0, 0, 0)"
        )
    if min(strides) < 1:
        raise InputError(f"strides are {strides}; wanted three numbers of 1 or more")
    if seeds is not None and seeds.shape != shape[1:]:
        raise InputError(
            f"seeds have shape {seeds.shape}, affinities {shape[1:]}; wanted the same"
        )


def _fixed(array: np.ndarray) -> np.ndarray:
    """Contiguous and read-only, so that one compiled kernel serves all callers."""
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array
