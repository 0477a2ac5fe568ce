import hypothesis
import hypothesis.strategies as st
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nisbjax.decode import spanning

TOP = 5


def empty_forest(count):
    return np.arange(count, dtype=np.uint32), np.zeros(count, np.uint8)


def joined(parent, level, least):
    """Component of each vertex at a level, by walking up one link at a time."""
    tops = []
    for vertex in range(len(parent)):
        while level[vertex] >= least:
            vertex = int(parent[vertex])
        tops.append(vertex)
    return tops


def partition(names):
    """Sets of positions with equal names."""
    groups = {}
    for position, name in enumerate(names):
        groups.setdefault(name, set()).add(position)
    return sorted(map(sorted, groups.values()))


edge = st.tuples(st.integers(0, 11), st.integers(0, 11), st.integers(0, TOP))


def insert(parent, level, edges):
    sources, targets, levels = np.array(edges, np.int64).reshape(-1, 3).T
    spanning.insert_edges(parent, level, sources, targets, levels.astype(np.uint8))


def test_an_edge_displaces_the_weakest_of_its_cycle():
    parent, level = empty_forest(3)
    # A path 0 -2- 1 -1- 2, then 0 -3- 2: the cycle 0-1-2 loses its edge of level 1.
    insert(parent, level, [(0, 1, 2), (1, 2, 1), (0, 2, 3)])
    assert partition(joined(parent, level, 1)) == [[0, 1, 2]]
    assert partition(joined(parent, level, 2)) == [[0, 1, 2]]
    assert partition(joined(parent, level, 3)) == [[0, 2], [1]]
    assert sorted(level.tolist()) == [0, 2, 3]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(edges=st.lists(edge, max_size=40))
def test_components_at_every_level_are_those_of_the_graph(edges):
    parent, level = empty_forest(12)
    insert(parent, level, edges)
    for least in range(1, TOP + 1):
        strong = np.array([e[:2] for e in edges if e[2] >= least]).reshape(-1, 2).T
        graph = coo_array((np.ones(strong.shape[1]), tuple(strong)), shape=(12, 12))
        _, expected = connected_components(graph, directed=False)
        tops = joined(parent, level, least)
        assert partition(tops) == partition(expected.tolist())
        # The top is the first vertex of its component.
        assert all(top == min(g) for g in partition(tops) for top in [tops[g[0]]])


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    edges=st.lists(edge, max_size=40), terminals=st.sets(st.integers(0, 11))
)
def test_a_contracted_forest_joins_its_terminals_as_before(edges, terminals):
    parent, level = empty_forest(12)
    insert(parent, level, edges)
    kept = np.array(sorted(terminals), np.int64)
    owner = np.full(12, spanning.NONE)
    room = np.empty((2, len(kept)), np.int64)
    levels = np.empty(len(kept), np.uint8)
    count = spanning.contract(parent, level, kept, TOP, owner, *room, levels)
    assert (owner == spanning.NONE).all()
    assert count <= max(0, len(kept) - 1)
    small_parent, small_level = empty_forest(len(kept))
    spanning.insert_edges(
        small_parent, small_level, *room[:, :count].copy(), levels[:count]
    )
    for least in range(1, TOP + 1):
        whole = [joined(parent, level, least)[v] for v in kept]
        assert partition(joined(small_parent, small_level, least)) == partition(whole)


def test_segments_and_background_by_level():
    # 0 -3- 1 -1- 2; vertex 3 has an edge of level 2 that leaves the volume, 4 has none.
    parent, level = empty_forest(5)
    insert(parent, level, [(0, 1, 3), (1, 2, 1)])
    foreground = np.array([3, 3, 1, 2, 0], np.uint8)
    found = np.zeros((3, 4), np.uint64)
    spanning.find_components(
        parent, level, foreground, np.array([1, 2, 3, 4], np.int64), found
    )
    assert found.tolist() == [[1, 1, 4, 0], [1, 0, 4, 0], [1, 0, 0, 0]]


def test_a_long_serpentine_at_one_level():
    # One path of 10^5 vertices, in an order that makes each link climb.
    count = 100_000
    parent, level = empty_forest(count)
    order = np.random.default_rng(0).permutation(count)
    levels = np.full(count - 1, 4, np.uint8)
    spanning.insert_edges(
        parent, level, order[:-1].astype(np.int64), order[1:].astype(np.int64), levels
    )
    found = np.zeros((4, count), np.uint64)
    foreground = np.full(count, 4, np.uint8)
    spanning.find_components(parent, level, foreground, np.arange(count), found)
    assert (found == 1).all()
