"""Joins against plain Python that sums all links of two segments anew at every step."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.decode.agglomeration.evidence import BINS, UNIT
from nisbjax.decode.agglomeration.joins import absorb, average, quantile
from nisbjax.decode.agglomeration.pairs import Pairs
from nisbjax.errors import InputError


def pairs_of(labels, links, voxels=None, histogram=None):
    """Links: (low, high, touching, number, total in logits), ascending."""
    low, high, touching, number, total = zip(*links, strict=True) if links else [()] * 5
    return Pairs(
        np.arange(labels),
        np.array(low, np.int32),
        np.array(high, np.int32),
        np.array(touching, bool),
        np.array(number, np.int64),
        np.array([round(t * UNIT) for t in total], np.int64),
        np.array(voxels if voxels else [1] * labels, np.int64),
        histogram,
    )


def one_after_another(pairs, strength, least):
    """Joins the strongest pair of segments until none touches that is strong enough.

    Args:
      strength: of some links, given as positions of pairs.
    """
    segment = list(range(len(pairs.names)))
    while True:
        between = {}
        for e in range(len(pairs.low)):
            ends = frozenset((segment[pairs.low[e]], segment[pairs.high[e]]))
            if len(ends) == 2:
                between.setdefault(ends, []).append(e)
        # Of equal ones that with the first link of all.
        best = max(
            (
                (strength(links), -min(links), ends)
                for ends, links in between.items()
                if any(pairs.touching[e] for e in links)
            ),
            default=None,
            key=lambda found: found[:2],
        )
        if best is None or not best[0] > least:
            break
        into = min(best[2])
        segment = [into if s in best[2] else s for s in segment]
    return [segment.index(s) for s in segment]


@st.composite
def graphs(draw):
    labels = draw(st.integers(2, 7))
    every = list(itertools.combinations(range(labels), 2))
    chosen = sorted(draw(st.sets(st.sampled_from(every), min_size=1)))
    links = [
        (
            *pair,
            draw(st.booleans()),
            draw(st.integers(1, 3)),
            draw(st.integers(-3, 4)),
        )
        for pair in chosen
    ]
    return pairs_of(labels, links)


@given(graphs())
def test_average_linkage(pairs):
    def mean(links):
        total = sum(pairs.total[links].tolist())
        return total / sum(pairs.number[links].tolist())

    wanted = one_after_another(pairs.copy(), mean, 0)
    assert average(pairs.copy()).tolist() == wanted


def test_many_segments_join_as_one_after_another():
    # Enough for lists, heap and hash table to be used again and again.
    random = np.random.default_rng(5)
    every = np.array(list(itertools.combinations(range(60), 2)))
    chosen = every[np.sort(random.choice(len(every), 500, replace=False))]
    links = [
        (a, b, random.random() < 0.6, random.integers(1, 9), random.integers(-9, 7))
        for a, b in chosen.tolist()
    ]
    pairs = pairs_of(60, links)

    def mean(links):
        return pairs.total[links].sum().item() / pairs.number[links].sum().item()

    wanted = one_after_another(pairs.copy(), mean, 0)
    assert 2 < len(set(wanted)) < 58
    assert average(pairs.copy()).tolist() == wanted


def test_a_long_link_keeps_two_apart_that_a_third_would_unite():
    # The example of the module: 50 - 20 x .5 = 40, 45 - 30 x .5 = 30, and -80.
    links = [(0, 1, True, 20, 40), (0, 2, False, 40, -80), (1, 2, True, 30, 30)]
    assert average(pairs_of(3, links)).tolist() == [0, 0, 2]
    assert average(pairs_of(3, [links[0], links[2]])).tolist() == [0, 0, 0]
    assert average(pairs_of(3, links), least=2.5).tolist() == [0, 1, 2]


def test_of_equal_pairs_the_first_joins():
    # 0-2 and 1-2 are equal, and 0 and 1 are against each other: the first one has 2.
    links = [(0, 1, True, 9, -99), (0, 2, True, 1, 1), (1, 2, True, 1, 1)]
    assert average(pairs_of(3, links)).tolist() == [0, 1, 0]


def test_joined_pairs_keep_the_first_place_of_theirs():
    # 0 and 1 join. Their pair with 2 has the links 0-2 and 1-2, mean 1 as 0-3, which stands
    # between them; 2 and 3 are against each other. So 0-2 comes first, and 2 is taken.
    links = [
        (0, 1, True, 1, 9),
        (0, 2, True, 1, 1),
        (0, 3, True, 1, 1),
        (1, 2, True, 1, 1),
        (2, 3, True, 9, -99),
    ]
    assert average(pairs_of(4, links)).tolist() == [0, 0, 0, 3]


def test_no_pairs_join_nothing():
    assert average(pairs_of(3, [])).tolist() == [0, 1, 2]
    assert absorb(pairs_of(3, []), 5).tolist() == [0, 1, 2]


def test_small_fragments_join_the_anchor_with_the_highest_mean():
    # 0 and 1 are anchors. 2 goes to 1 (mean 3, not 2), 3 to 0 (equal means), 4 touches small
    # ones alone, 5 is too weak, 6 is linked and does not touch.
    voxels = [50, 60, 5, 4, 3, 2, 1]
    links = [
        (0, 1, True, 1, 6),
        (0, 2, True, 4, 8),
        (0, 3, True, 2, 2),
        (0, 5, True, 1, 0.5),
        (0, 6, False, 1, 9),
        (1, 2, True, 1, 3),
        (1, 3, True, 1, 1),
        (2, 4, True, 1, 7),
    ]
    pairs = pairs_of(7, links, voxels)
    assert absorb(pairs, 50, 0.5).tolist() == [0, 1, 1, 0, 4, 5, 6]
    assert absorb(pairs, 50).tolist() == [0, 1, 1, 0, 4, 0, 6]
    # By 55, 0 is small too, and 1 its anchor.
    assert absorb(pairs, 55).tolist() == [1, 1, 1, 1, 4, 5, 6]


def histograms_of(pairs, random):
    found = np.zeros((len(pairs.low), BINS), np.int32)
    for row in found:
        bins = random.integers(0, 4, 3) * 80  # few, so that many are equal
        np.add.at(row, bins, random.integers(1, 4, 3))
    return found


@given(graphs(), st.sampled_from([0.0, 25.0, 50.0, 85.0, 100.0]), st.integers(0, 99))
def test_quantiles(pairs, percent, seed):
    counts = histograms_of(pairs, np.random.default_rng(seed))
    pairs = dataclasses.replace(pairs, histogram=counts)
    touching = np.flatnonzero(pairs.touching)
    by_pair = ("low", "high", "touching", "number", "total", "histogram")
    alone = dataclasses.replace(
        pairs, **{name: getattr(pairs, name)[touching] for name in by_pair}
    )

    def strength(links):
        every = np.repeat(np.arange(BINS), counts[touching[links]].sum(0)).tolist()
        at = min(int(percent * len(every) / 100), len(every) - 1)
        return (every[at] + 0.5) / BINS

    wanted = one_after_another(alone, strength, 0.4)
    found = quantile(pairs.copy(), percent, 0.6, from_highest=False)
    assert found.tolist() == wanted


def test_a_pair_may_begin_with_its_highest_bin_alone():
    # Affinities .1, .1 and .9: the median is in bin 25, the highest in bin 230.
    histogram = np.zeros((1, BINS), np.int32)
    histogram[0, [25, 230]] = 2, 1
    links = [(0, 1, True, 3, 0)]
    pairs = pairs_of(2, links, histogram=histogram)
    assert quantile(pairs.copy(), 50.0, 0.5).tolist() == [0, 0]
    assert quantile(pairs.copy(), 50.0, 0.5, from_highest=False).tolist() == [0, 1]
    # 1 - 230.5 / 256 = .0996 is no less than .0996.
    assert quantile(pairs.copy(), 50.0, 1 - 230.5 / 256).tolist() == [0, 1]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"histogram": None}, "needs histograms"),
        ({"percent": 101.0}, "the quantile is 101.0; wanted a percentage"),
        ({"threshold": -0.1}, "the threshold is -0.1; wanted a number"),
    ],
)
def test_quantiles_that_mean_nothing_are_refused(change, said):
    histogram = change.pop("histogram", np.zeros((0, BINS), np.int32))
    pairs = pairs_of(2, [], histogram=histogram)
    with pytest.raises(InputError, match=said):
        quantile(pairs, **{"percent": 50.0, "threshold": 0.5, **change})


def test_an_anchor_of_no_voxel_is_refused():
    with pytest.raises(InputError, match="anchor is 0; wanted 1 voxel or more"):
        absorb(pairs_of(2, []), 0)
