"""Boxes joined by hand: meeting nodes, loops, ticks, dust, pieces."""

import numpy as np
import pytest

from nisbjax.skeletonize.box_skeletons import BoxSkeletons
from nisbjax.skeletonize.joining import join

VOXEL = (10.0, 10.0, 20.0)


def part(nodes, edges, radius=None, label=1, voxels=100):
    """Skeletons of one label in one box."""
    n = len(nodes)
    return BoxSkeletons(
        np.full(n, label, np.int64),
        np.array(nodes, np.int64).reshape(n, 3),
        np.array(radius or [30.0] * n, np.float32),
        np.array(edges, np.int64).reshape(-1, 2),
        np.array([label]),
        np.array([voxels]),
    )


def joined(*parts, dust_voxels=0, tick_nm=0.0):
    return join(parts, VOXEL, dust_voxels=dust_voxels, tick_nm=tick_nm)


def along_x(*xs):
    return [(x, 0, 0) for x in xs]


def test_boxes_meet_in_one_node():
    """x 0 1 2 and 2 3: four nodes, three edges of 10 nm, in one piece."""
    found = joined(
        part(along_x(2, 0, 1), [(1, 2), (2, 0)]), part(along_x(3, 2), [(0, 1)])
    )
    assert found.skeletons.index_position[:, 0].tolist() == [0, 1, 2, 3]
    assert found.skeletons.edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert found.skeletons.edge_lengths_nm.tolist() == [10, 10, 10]
    assert (found.labels, found.in_pieces, found.without_edge) == (1, 0, 0)


def test_one_voxel_of_two_labels_is_two_nodes():
    found = joined(
        part(along_x(0, 1), [(0, 1)]), part(along_x(1, 2), [(0, 1)], label=2)
    )
    assert found.skeletons.node_id.tolist() == [1, 1, 2, 2]
    assert found.labels == 2 and found.in_pieces == 0


def test_a_ring_is_cut_at_its_thinnest_and_stays():
    """A square of four nodes from two boxes; the node of radius 5 has two edges, the first
    of which, to (0 0 0), goes."""
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
    one = part([corners[0], corners[3]], [(0, 1)], [30.0, 20.0])
    other = part(corners, [(0, 1), (1, 2), (2, 3)], [30.0, 5.0, 30.0, 20.0])
    found = joined(one, other).skeletons
    assert len(found.node_id) == 4
    places = found.index_position[found.edges].tolist()
    assert len(places) == 3
    thin = [pair for pair in places if [1, 0, 0] in pair]
    assert len(thin) == 1


def test_ticks_go_shortest_first_and_the_rest_stays():
    """A line of 0..6 along x with a branch of 2 voxels in y at 3, and one of 1 at 5.

    Below 25 nm both branches go. The line's own end beyond 5, of 10 nm, goes first, as
    short as the branch beside it, if it comes first: what is left ends at x 5 or 6.
    """
    nodes = along_x(*range(7)) + [(3, 1, 0), (3, 2, 0), (5, 1, 0)]
    line = [(i, i + 1) for i in range(6)] + [(3, 7), (7, 8), (5, 9)]
    all_kept = joined(part(nodes, line)).skeletons
    assert len(all_kept.edges) == 9
    found = joined(part(nodes, line), tick_nm=25.0).skeletons
    degree = np.bincount(found.edges.ravel())
    assert degree.max() == 2 and (degree == 1).sum() == 2
    assert found.edge_lengths_nm.sum() in (60, pytest.approx(60))
    assert [3, 1, 0] not in found.index_position.tolist()
    # a lone short line is all that there is of its label
    short = joined(part(along_x(0, 1), [(0, 1)]), tick_nm=25.0)
    assert len(short.skeletons.edges) == 1


def test_ticks_of_one_label_leave_others_alone():
    nodes = along_x(*range(5)) + [(2, 1, 0)]
    line = [(0, 1), (1, 2), (2, 3), (3, 4), (2, 5)]
    parts = [part(nodes, line, label=label) for label in (4, 8)]
    found = joined(*parts, part(along_x(0, 1), [(0, 1)], label=6), tick_nm=15.0)
    assert np.bincount(found.skeletons.node_id).tolist() == [0] * 4 + [5, 0, 2, 0, 5]


def test_dust_counts_voxels_of_all_boxes():
    parts = [part(along_x(0, 1), [(0, 1)], label=1, voxels=60)]
    parts += [part(along_x(1, 2), [(0, 1)], label=1, voxels=40)]
    parts += [part(along_x(5, 6), [(0, 1)], label=2, voxels=99)]
    found = joined(*parts, dust_voxels=100)
    assert set(found.skeletons.node_id.tolist()) == {1}
    assert (found.labels, found.dust) == (1, 1)


def test_pieces_and_labels_without_an_edge_are_counted():
    parts = [part(along_x(0, 1, 5, 6), [(0, 1), (2, 3)], label=1)]
    parts += [part([], [], label=2)]
    found = joined(*parts)
    assert (found.labels, found.in_pieces, found.without_edge) == (2, 1, 1)


def test_the_order_of_boxes_says_nothing():
    rng = np.random.default_rng(1)
    parts = []
    for label in (1, 2, 3, 1, 2, 3):
        nodes = np.unique(rng.integers(0, 4, (12, 3)), axis=0)
        edges = [(i, int(rng.integers(i))) for i in range(1, len(nodes))]
        radius = rng.integers(1, 9, len(nodes)).astype(float).tolist()
        parts.append(part(nodes, edges, radius, label))
    first = joined(*parts, tick_nm=15.0).skeletons
    second = joined(*parts[::-1], tick_nm=15.0).skeletons
    assert first.index_position.tolist() == second.index_position.tolist()
    assert first.edges.tolist() == second.edges.tolist()
