"""Which fragments are one: average linkage, absorption of small ones, and waterz's quantiles.

Each takes pairs of linked fragments and says for the position of each fragment that of the
one it becomes, so they compose: `second(pairs.joined(first))[first]` (`composition`). PyTC calls waterz, whose
regions join by touching affinities alone; long-range affinities are evidence here. By average
linkage a pair is as strong as the mean over its links of their logits less what says nothing.
Fragments 1 and 2 touch over 20 faces, 2 and 3 over 30; 40 edges link 1 and 3 over ten voxels
(short .5, long 0):

    links    number   sum of logits   less nothing   mean
    1-2      20        50              40             2.0    the strongest: 1 and 2 join
    2-3      30        45              30             1.0
    1-3      40       -80             -80            -2.0    they do not touch
    {1 2}-3  70       -35             -50            -0.7    which is against it: 3 stays
"""

import dataclasses

import numpy as np

from nisbjax.decode.agglomeration import linkage
from nisbjax.decode.agglomeration.evidence import BINS, UNIT, fixed
from nisbjax.decode.agglomeration.pairs import Pairs, Table
from nisbjax.errors import InputError


def average(pairs: Pairs, least: float = 0.0) -> Table:
    """Joins the touching pair whose links have the highest mean, while it exceeds `least`.

    Args:
      pairs: as `load_pairs`; consumed.
      least: logit, beyond what `Evidence` says says nothing.
    """
    return _agglomerate(pairs, float(fixed(least)), 0.0, np.empty((0, BINS), np.int32))


def quantile(
    pairs: Pairs, percent: float, threshold: float, *, from_highest: bool = True
) -> Table:
    """Joins as waterz' `OneMinus<QuantileAffinity<..., percent, HistogramQuantile256>>`.

    The pair joins first whose quantile of the affinities of its common faces is highest,
    while 1 less this quantile is below the threshold.

    Args:
      pairs: with histograms; consumed.
      percent: 50 = the median.
      threshold: of the score, in [0, 1].
      from_highest: a pair begins with one affinity alone, in its highest bin, as waterz does by
        default (`InitWithMax`).

    Raises:
      InputError: no histograms, a percentage or a threshold outside their ranges.
    """
    if pairs.histogram is None:
        raise InputError("joining by quantiles needs histograms of affinities")
    if not 0 <= percent <= 100:
        raise InputError(f"the quantile is {percent}; wanted a percentage, 0 to 100")
    if not 0 <= threshold <= 1:
        raise InputError(f"the threshold is {threshold}; wanted a number in [0, 1]")
    touching = pairs.touching
    histogram = pairs.histogram[touching]
    pairs = dataclasses.replace(
        pairs,
        low=pairs.low[touching],
        high=pairs.high[touching],
        touching=touching[touching],
        number=pairs.number[touching],
        total=pairs.total[touching],
        histogram=None,
    )
    if from_highest and len(histogram):
        highest = BINS - 1 - np.argmax(histogram[:, ::-1] > 0, axis=1)
        found = histogram.any(axis=1)
        histogram[...] = 0
        histogram[np.arange(len(histogram)), highest] = found
    # A score of exactly the threshold stops waterz; quantiles are (b + .5) / 256.
    return _agglomerate(pairs, 1.0 - threshold, percent, histogram)


def absorb(pairs: Pairs, anchor: int, least: float = 0.0) -> Table:
    """Small fragments join the touching anchor with the highest mean; none joins another one.

    Args:
      pairs: as `load_pairs`.
      anchor: fragments of so many voxels are anchors, others are small.
      least: logit that the mean must exceed, beyond what `Evidence` says says nothing.

    Returns:
      Label -> joined label, that of the anchor. Of equal means that with the lowest anchor
      counts.

    Raises:
      InputError: an anchor of no voxel.
    """
    if anchor < 1:
        raise InputError(f"anchor is {anchor}; wanted 1 voxel or more")
    table = np.arange(len(pairs.voxels), dtype=np.int64)
    large = pairs.voxels >= anchor
    mean = pairs.total / np.maximum(pairs.number, 1)
    may = (
        pairs.touching & (large[pairs.low] != large[pairs.high]) & (mean > least * UNIT)
    )
    low, high, mean = pairs.low[may], pairs.high[may], mean[may]
    small = np.where(large[low], high, low)
    taken_by = np.where(large[low], low, high)
    order = np.lexsort((taken_by, -mean, small))
    names, first = np.unique(small[order], return_index=True)
    table[names] = taken_by[order][first]
    return table


def _agglomerate(
    pairs: Pairs, least: float, percent: float, histogram: np.ndarray
) -> Table:
    count, labels = len(pairs.low), len(pairs.voxels)
    wide = pairs.low.dtype
    every = np.arange(labels, dtype=wide)
    graph = linkage.Graph(
        pairs.low,
        pairs.high,
        pairs.touching,
        pairs.number,
        pairs.total,
        histogram,
        every,
        np.full(labels, -1, wide),
        np.full(labels, -1, wide),
        np.zeros(labels, wide),
        np.empty(2 * count, wide),
        np.empty(1 << (5 * count // 2).bit_length(), wide),
        np.empty(count, wide),
        np.full(count, -1, wide),
        np.empty(count, np.float64),
    )
    linkage.agglomerate(graph, least, percent)
    table = np.empty(labels, np.int64)
    linkage.lowest(graph.parent, table)
    return table
