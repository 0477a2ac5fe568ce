"""Connected components of the affinity graph: exact, parallel, without a boolean copy.

The graph, the strict comparison and the order of the labels are those of BANIS
`inference.py` and PyTC `decode_affinity_cc` (numba backend). They threshold into boolean
copies and then flood, or stop after 256 sweeps with wrong labels; here slabs of planes are
united in parallel from the stored bits of the affinities, and their seams afterwards.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt

from nisbjax.decode import kernels, numbering
from nisbjax.decode.kernels import Forest, PlaneValues, Rule
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import ImageSource, MaskSource
from nisbjax.typing import Affinities, Triple


class EdgeRange(NamedTuple):
    """Unsigned values v with low < v <= high are edges."""

    bits: np.dtype
    low: np.unsignedinteger
    high: np.unsignedinteger


def edge_range(dtype: np.dtype, threshold: float) -> EdgeRange:
    """`affinity > threshold` as a comparison of the stored bits.

    A float's bits grow with its value from 0 to infinity; negative values and NaN lie
    above those of infinity. The threshold is rounded to the affinities' own type, as numpy
    does for PyTC; uint8 stands for value / 255 in double precision.

    Raises:
      InputError: another type, or a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:  # also NaN
        raise InputError(
            f"threshold {threshold} came for affinities; wanted a number from 0 to 1"
        )
    if dtype == np.uint8:
        low = np.flatnonzero(np.arange(256) / 255 <= threshold)[-1]
        return EdgeRange(np.dtype(np.uint8), np.uint8(low), np.uint8(255))
    for real, bits in ((np.float16, np.uint16), (np.float32, np.uint32)):
        if dtype == real:
            low, high = np.array([abs(threshold), np.inf], real).view(bits)
            return EdgeRange(np.dtype(bits), low, high)
    raise InputError(
        f"affinities are {dtype}; wanted float16, float32, or uint8 (value / 255)"
    )


def label_affinities(
    affinities: Affinities,
    threshold: float,
    *,
    edge_offset: int = 0,
    mask: MaskSource | None = None,
    mask_edges: str = "both",
    threads: int | None = None,
    image: ImageSource | None = None,
) -> UInt[np.ndarray, "x y z"]:
    """Connected components of the graph of affinities above a threshold.

    Voxels v and v + e_c are joined where affinity c, stored at v + edge_offset e_c, exceeds
    the threshold. A voxel is foreground if it has an edge, or an affinity above the
    threshold whose other voxel lies outside of the volume. PyTC's decoder besides sets voxel
    (0, 0, 0) to background where no other voxel is; this one does not.

    Args:
      affinities: [c x y z], c >= 3, channels 0-2 for the neighbours on x, y, z; float16,
        float32, or uint8 meaning value / 255. NaN and negative values are no edges.
      threshold: in [0, 1], compared strictly, in the type of the affinities.
      edge_offset: 0 where edges are stored at their source (BANIS), 1 at the destination.
      mask: [x y z], 0 (or False) = masked; or a specification.
      mask_edges: `both` drops every edge that touches a masked voxel; `source` only those
        stored at one, as PyTC does, by which one plane behind a masked region stays.
      threads: at work; all cores where None. The labels do not depend on it.
      image: [x y z] or [x y z k], which a specification with a border ring needs.

    Returns:
      [x y z] labels, 0 = background, 1..N by each component's first voxel in C order;
      uint32, or uint64 where the volume has 2^32 voxels or more. Takes this much memory
      and 6.3 % more.

    Raises:
      InputError: fewer than 3 channels, another dtype, a bad threshold or option, or a mask
        of another shape.
    """
    shape = affinities.shape[1:]
    edges = MaskedEdges(edge_offset, mask, image, mask_edges)
    edges.require_shape(shape)
    dtype = np.uint32 if np.prod(shape, dtype=np.uint64) < 2**32 else np.uint64
    labels, _ = label_box(affinities, threshold, edges, threads=threads, dtype=dtype)
    return labels


def label_box(
    affinities: Affinities,
    threshold: float,
    edges: MaskedEdges,
    *,
    threads: int | None = None,
    dtype: type = np.uint32,
) -> tuple[UInt[np.ndarray, "x y z"], int]:
    """As `label_affinities`, whose mask may be that of a whole volume around this box.

    Args:
      affinities, threshold, threads: as there.
      edges: with voxels counted from the start of the box.
      dtype: of the labels.

    Returns:
      The labels, and how many there are.

    Raises:
      InputError: fewer than 3 channels, another dtype, or a threshold outside [0, 1].
    """
    if len(affinities) < 3:
        raise InputError(
            f"affinities have {len(affinities)} channel(s); wanted at least 3, the edges "
            "on x, y and z"
        )
    shape: Triple = affinities.shape[1:]
    bits, low, high = edge_range(affinities.dtype, threshold)
    values = affinities.view(bits)
    labels = np.empty(shape, dtype)
    if labels.size == 0:
        return labels, 0
    forest = Forest.over(labels)
    masked = edges.mask is not None
    rule = Rule(low, high, bool(edges.edge_offset), masked, edges.both)
    threads = threads or len(os.sched_getaffinity(0))
    cuts = np.linspace(0, shape[0], min(threads, shape[0]) + 1)
    cuts = cuts.astype(int).tolist()
    slabs = list(itertools.pairwise(cuts))
    with ThreadPoolExecutor(threads) as pool:

        def unite_slab(slab):
            _unite(values, edges, rule, forest, *slab)
            # For its seams; both planes belong to this slab alone.
            numbering.flatten_plane(forest.parent, forest.joined, slab[0])
            numbering.flatten_plane(forest.parent, forest.joined, slab[1] - 1)

        list(pool.map(unite_slab, slabs))
        attached = [_join(values, edges, rule, forest, x) for x in cuts[1:-1]]
        attached = np.sort(np.concatenate([np.empty(0, dtype), *attached]))
        numbering.resolve(forest.parent, attached)
        return labels, _number(pool, forest, cuts, attached, threads)


_PLANES_VOXELS = 1 << 21  # at once, where planes are copied or a mask is made of them


def _unite(
    values: UInt[np.ndarray, "c x y z"],
    edges: MaskedEdges,
    rule: Rule,
    forest: Forest,
    start: int,
    stop: int,
) -> None:
    """Adds the edges that a rule names among planes start to stop to a forest."""
    shape = values.shape[1:]
    carry = np.zeros((3, *forest.joined.shape[1:]), np.uint64)
    step = stop - start
    if edges.mask is not None or not values[0].flags.c_contiguous:
        step = max(1, _PLANES_VOXELS // (shape[1] * shape[2]))
    for first in range(start, stop, step):
        planes = slice(first, min(first + step, stop))
        mask = _mask_bytes(edges, planes.start, planes.stop, shape)
        x, y, z = (_fixed(values[c, planes]) for c in range(3))
        read = PlaneValues(x, y, z, mask)
        kernels.unite_planes(read, rule, first, first > start, forest, carry)


def _fixed(array: np.ndarray) -> np.ndarray:
    """Contiguous and read-only, so that one compiled kernel serves all callers."""
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array


def _mask_bytes(edges: MaskedEdges, start: int, stop: int, shape: Triple) -> np.ndarray:
    """Bytes of the mask's planes; an empty array where there is no mask."""
    mask = edges.mask_of(Box((start, 0, 0), (stop, *shape[1:])))
    if mask is None:
        return _fixed(np.empty((0, 0, 0), np.uint8))
    return _fixed(np.ascontiguousarray(mask).view(np.uint8))


def _join(values, edges, rule, forest, x):
    shape = values.shape[1:]
    destination = rule.destination
    plane = values[0, x if destination else x - 1]
    masks = (_mask_bytes(edges, i, i + 1, shape) for i in (x - 1, x))
    masks = [mask.reshape(-1, shape[2]) for mask in masks]
    attached = np.empty(plane.size, forest.parent.dtype)
    seam = [_fixed(part) for part in (plane, *masks)]
    return attached[: kernels.join_seam(*seam, rule, x, forest, attached)]


def _number(pool, forest, cuts, attached, threads) -> int:
    """Numbers the components in C order and writes their labels; returns how many."""
    plane = forest.parent.size // len(forest.joined)
    pieces = [
        (int(a), int(b))
        for start, stop in itertools.pairwise(cuts[:-1])
        for a, b in itertools.pairwise(
            np.linspace(start, stop, threads + 1).astype(int).tolist()
        )
    ]
    roots = np.unique(forest.parent[attached])
    bounds = [np.searchsorted(roots, (a * plane, b * plane)) for a, b in pieces]
    ranks = np.empty(len(roots), np.uint64)

    def count(piece, bound):
        part = slice(*bound)
        return numbering.count_roots(*forest, *piece, roots[part], ranks[part])

    counts = list(pool.map(count, pieces, bounds))
    before = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    for i, bound in enumerate(bounds):
        ranks[slice(*bound)] += before[i]
    labels = ranks[np.searchsorted(roots, forest.parent[attached])]

    def write(i):
        start, stop = int(cuts[i]), int(cuts[i + 1])
        own = slice(*np.searchsorted(attached, (start * plane, stop * plane)))
        cross = forest.parent[attached[own]] < start * plane
        base = before[i * threads]
        part = attached[own][cross], labels[own][cross]
        return numbering.write_labels(*forest, start, stop, base, *part)

    return int(list(pool.map(write, range(len(cuts) - 1)))[-1])
