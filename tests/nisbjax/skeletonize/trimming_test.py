"""Loops and short ends of graphs that are drawn in the comments."""

import numpy as np
import pytest

from nisbjax.skeletonize.trimming import edges_of, graph_of, open_loops, remove_ticks


def opened(positions, edges, closing, radius):
    position = np.array(positions, float)
    edges = np.array(edges)
    lengths = np.linalg.norm(position[edges[:, 0]] - position[edges[:, 1]], axis=1)
    graph = graph_of(edges, lengths)
    open_loops(graph, np.array(closing), position, np.zeros(len(position)) + radius)
    return sorted(edges_of(graph))


# Two ways from 1 to 4, a step apart, and the stem before and behind them:
#       2 - 3
#     /       \
# 0 - 1 - 6 - 7 - 4 - 5
LADDER = [(0, 0), (1, 0), (1, 1), (2, 1), (4, 0), (5, 0), (2, 0), (3, 0)]
LADDER = [(*p, 0) for p in LADDER]
WAYS = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 6), (6, 7), (4, 7), (4, 5)]


def test_of_two_ways_inside_one_neurite_one_goes():
    """Both ways lie within the other's balls: the longer goes, 1-2-3-4, or the thinner."""
    below = [(0, 1), (1, 6), (4, 5), (4, 7), (6, 7)]
    assert opened(LADDER, WAYS, [(6, 7)], 1.5) == below
    radius = [2, 2, 2, 2, 2, 2, 1.5, 1.5]
    above = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert opened(LADDER, WAYS, [(2, 3)], radius) == above


def test_rails_go_and_not_rungs():
    """The ladder with 6-2 as a rung: two loops, 1-2-6 and 2-3-4-7-6.

    Of the second 2-3-4 goes, the longest way; then 2 is no branching any more, and of the
    first 1-2-6 goes.
    """
    found = opened(LADDER, [*WAYS, (2, 6)], [(2, 3), (1, 2)], 1.5)
    assert found == [(0, 1), (1, 6), (4, 5), (4, 7), (6, 7)]


def test_a_way_through_another_place_is_only_opened():
    """Radius .5: the ways are apart, as where a neurite touches itself."""
    found = opened(LADDER, WAYS, [(2, 3)], 0.5)
    assert found == sorted(set(WAYS) - {(2, 3)})


@pytest.mark.parametrize("radius", [0.1, 9.0])
def test_a_ring_stays_whatever_its_radius(radius):
    """Alone, and with a stem at 0: all of it but the edge 1-2."""
    square = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (-1, 0, 0)]
    ring = [(0, 1), (1, 2), (2, 3), (0, 3)]
    for edges in (ring, [*ring, (0, 4)]):
        assert opened(square, edges, [(1, 2)], radius) == sorted(set(edges) - {(1, 2)})


def test_two_loops_that_share_a_way():
    """The ladder with a third way 1-8-4: two edges close loops, and two ways go."""
    position = [*LADDER, (2, -1, 0)]
    edges = [*WAYS, (1, 8), (4, 8)]
    found = opened(position, edges, [(2, 3), (1, 8)], 3.0)
    assert found == [(0, 1), (1, 6), (4, 5), (4, 7), (6, 7)]
    # one of them went with a way before: the other edge of the same way closes nothing
    found = opened(position, edges, [(2, 3), (3, 4), (1, 8)], 3.0)
    assert found == [(0, 1), (1, 6), (4, 5), (4, 7), (6, 7)]


def trimmed(edges, shortest, lengths=None):
    edges = np.array(edges)
    graph = graph_of(edges, np.array(lengths or [1] * len(edges), float))
    remove_ticks(graph, shortest)
    return sorted(edges_of(graph))


def test_the_shortest_end_goes_first_and_frees_the_next():
    """0-1-2-3-4 with 5 at 2 (length 1) and 6-7 at 3 (length 2).

    Below 2 the branch 2-5 goes, and 3-4 (length 1), after which 3-6-7 is the line's end.
    """
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (2, 5), (3, 6), (6, 7)]
    assert trimmed(edges, 2.0) == [(0, 1), (1, 2), (2, 3), (3, 6), (6, 7)]
    assert trimmed(edges, 1.0) == sorted(edges)


def test_a_bridge_between_two_lines_stays():
    """Lines 0-1-2 and 3-4-5 of long edges with the bridge 1-6-4 of short ones: an H."""
    edges = [(0, 1), (1, 2), (3, 4), (4, 5), (1, 6), (4, 6)]
    lengths = [9, 9, 9, 9, 1, 1]
    assert trimmed(edges, 5.0, lengths) == sorted(edges)


def test_what_has_no_branching_stays():
    assert trimmed([(0, 1)], 99.0) == [(0, 1)]
    # of a star one path stays: 2, the shortest, goes, and then no branching is left
    assert trimmed([(0, 1), (0, 2), (0, 3)], 99.0, [3, 1, 2]) == [(0, 1), (0, 3)]
