"""The oracles, worked by hand and against loops over nodes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_skeletons import lines

from nisbjax.evaluate import nerl, node_pairs, oracles


def test_the_example_of_the_docstring():
    truth, segments = lines(4, 2), np.array([5, 5, 0, 6, 7, 7])
    counts = node_pairs.overlap(truth, segments)
    assert nerl.score(truth, segments)["nerl"] == 200 / 1000
    assert oracles.fill(counts).tolist() == [5, 5, 5, 6, 7, 7]
    assert oracles.merge(counts).tolist() == [1, 1, 0, 1, 2, 2]
    assert oracles.scores(truth, counts) == {
        "nerl_oracle_fill": 500 / 1000,  # 20^2 + 10^2
        "nerl_oracle_merge": 200 / 1000,
        "nerl_oracle_both": 1.0,
    }


def test_mergers_stay():
    """Segment 5 holds two nodes of the first skeleton and one of the second: the first
    owns it, and both lose what they have in it."""
    truth, segments = lines(2, 3), np.array([5, 5, 5, 6, 6])
    counts = node_pairs.overlap(truth, segments)
    assert oracles.owners(counts).tolist() == [0, 1]
    found = oracles.scores(truth, counts)
    assert found["nerl_oracle_both"] == pytest.approx(
        100 / 500
    )  # of 10^2 + 20^2 the edge in 6


def test_of_equal_ones_the_first_and_of_none_none():
    truth, segments = lines(2, 2, 2), np.array([9, 4, 4, 9, 0, 0])
    counts = node_pairs.overlap(truth, segments)
    assert counts.segment_ids.tolist() == [0, 4, 9]
    assert oracles.owners(counts).tolist() == [2, 0, 0]
    assert oracles.main_segments(counts).tolist() == [1, 1, -1]  # 4, 4, none
    assert oracles.fill(counts).tolist() == segments.tolist()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=9, max_size=9))
def test_equals_loops_over_nodes(values):
    truth, segments = lines(2, 3, 4), np.array(values)
    counts = node_pairs.overlap(truth, segments)
    nodes = Counter(zip(truth.node_id.tolist(), values, strict=True))
    filled, merged = [], []
    for skeleton, segment in zip(truth.node_id.tolist(), values, strict=True):
        mine = {g: n for (k, g), n in nodes.items() if k == skeleton and g}
        main = min(mine, key=lambda g: (-mine[g], g), default=0)
        filled.append(segment or main)
        held = {k: n for (k, g), n in nodes.items() if g == segment}
        merged.append(segment and min(held, key=lambda k: (-held[k], k)))
    assert oracles.fill(counts).tolist() == filled
    assert oracles.merge(counts).tolist() == merged
