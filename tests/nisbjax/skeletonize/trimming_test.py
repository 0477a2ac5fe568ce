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
    # an edge without which 3 is in no piece is kept, and the next closes the loop
    found = opened(position, edges, [(2, 3), (3, 4), (1, 8)], 3.0)
    assert found == [(0, 1), (1, 6), (4, 5), (4, 7), (6, 7)]


def test_a_way_is_cut_for_one_loop_alone():
    """Two loops share 2-5, 2-4-5 and 2-3-5, and 0 hangs on 3.

    A way of the first that took 3-5 with it would leave nothing that opens the second.
    """
    place = [(2, 3, 1), (0, 2, 1), (1, 1, 0), (0, 3, 1), (3, 0, 0), (1, 2, 1)]
    edges = [(0, 3), (2, 3), (2, 4), (2, 5), (3, 5), (4, 5)]
    found = opened(place, edges, [(2, 5), (3, 5)], [1, 1, 2, 2, 3, 3])
    assert pieces_of(found) == pieces_of(edges) == 1
    assert len(found) == nodes_of(found) - 1


def nodes_of(edges):
    return len(set(np.ravel(edges).tolist()))


def pieces_of(edges):
    """How many pieces edges are in, by the smallest node of each."""
    least = {node: node for edge in edges for node in edge}
    for _ in least:
        for a, b in edges:
            least[a] = least[b] = min(least[a], least[b])
    return len(set(least.values()))


@pytest.mark.parametrize("radius", [0.4, 1.5, 4.0])
def test_trees_are_left_of_any_graph(radius):
    """Random graphs of 4 to 24 nodes in 4 x 4 x 4, with up to twice as many edges as nodes."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 25))
        drawn = np.sort(rng.integers(0, n, (int(rng.integers(n, 2 * n)), 2)), axis=1)
        edges = np.unique(drawn[drawn[:, 0] < drawn[:, 1]], axis=0).tolist()
        rng.shuffle(edges)
        tree: list = []
        for edge in edges:  # a spanning forest; all other edges close loops
            more = [*tree, edge]
            if len(more) == nodes_of(more) - pieces_of(more):
                tree = more
        closing = [edge for edge in edges if edge not in tree]
        if not closing:
            continue
        place = rng.integers(0, 4, (n, 3))
        found = opened(place, edges, closing, radius * rng.uniform(0.5, 1, n))
        assert pieces_of(found) == pieces_of(edges), seed
        assert len(found) == nodes_of(found) - pieces_of(found), seed


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
