"""Pairs of skeleton and segment, counted by hand on five nodes."""

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.evaluate import node_pairs
from nisbjax.skeletons import Skeletons

# Skeleton 1 is the nodes 0 1 2, skeleton 2 the nodes 3 4, 10 nm apart along x.
POSITIONS = np.array([[n, 0, 0] for n in range(5)])
SKELETONS = Skeletons(
    node_id=np.array([1, 1, 1, 2, 2]),
    index_position=POSITIONS,
    position_nm=10.0 * POSITIONS,
    edges=np.array([[0, 1], [1, 2], [3, 4]]),
)


def counted(*segments):
    return node_pairs.overlap(SKELETONS, np.array(segments))


def status_names(counts):
    return [node_pairs.STATUS_NAMES[s] for s in node_pairs.edge_status(counts)]


def test_pairs_hold_the_nodes_of_a_skeleton_in_a_segment():
    # In skeleton 1: two nodes in segment 7, one in 9. In 2: one in 9, one in background.
    counts = counted(7, 7, 9, 9, 0)
    ids = counts.skeleton_ids[counts.pair_skeleton]
    segments = counts.segment_ids[counts.pair_segment]
    found = list(zip(ids.tolist(), segments.tolist(), counts.pair_nodes.tolist()))
    assert found == [(1, 7, 2), (1, 9, 1), (2, 0, 1), (2, 9, 1)]
    assert counts.node_pair.tolist() == [0, 0, 1, 3, 2]
    assert counts.edge_pair.tolist() == [0, 0, 3]
    assert counts.shared_pairs().tolist() == [False, True, False, True]
    assert counts.background_pairs().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "segments, names",
    [
        ((7, 7, 7, 8, 8), ["correct", "correct", "correct"]),
        ((7, 7, 9, 8, 0), ["correct", "split", "omitted"]),
        ((7, 7, 7, 7, 7), ["merged", "merged", "merged"]),
    ],
)
def test_status_of_edges(segments, names):
    assert status_names(counted(*segments)) == names


def test_kept_lengths_leave_out_what_is_merged():
    # The pairs (1, 7) and (2, 8): two correct edges of 10 nm, and one.
    counts = counted(7, 7, 7, 8, 8)
    none, first = np.array([False, False]), np.array([True, False])
    assert node_pairs.kept_lengths_nm(counts, none).tolist() == [20, 10]
    assert node_pairs.kept_lengths_nm(counts, first).tolist() == [0, 10]


def test_em_erl_wants_two_skeletons_of_enough_nodes_in_a_segment():
    counts = counted(7, 7, 7, 7, 7)  # three nodes of skeleton 1, two of 2
    assert counts.merging_em_erl(2).tolist() == [True, True]
    assert counts.merging_em_erl(3).tolist() == [False, False]


def test_another_number_of_segments_than_nodes():
    with pytest.raises(InputError, match="3 node segments came for the 5 nodes of"):
        counted(1, 2, 3)
