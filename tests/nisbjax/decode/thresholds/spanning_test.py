"""A forest of all levels against the components of the graph at each of them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nisbjax.decode.thresholds import spanning
from nisbjax.decode.thresholds.levels import join_strongest

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


def edges_of(levels):
    """(voxel before, voxel, level) of the edges of [3 x y z] levels."""
    index = np.arange(levels[0].size).reshape(levels.shape[1:])
    for axis in range(3):
        before = np.roll(index, 1, axis)
        for voxel, level in np.ndenumerate(levels[axis]):
            if voxel[axis] and level:
                yield int(before[voxel]), int(index[voxel]), int(level)


def components(count, edges, least):
    strong = np.array([e[:2] for e in edges if e[2] >= least], int).reshape(-1, 2).T
    graph = coo_array((np.ones(strong.shape[1]), tuple(strong)), shape=(count, count))
    return connected_components(graph, directed=False)[1].tolist()


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    share=st.sampled_from([0.1, 0.5]),
)
def test_raised_edges_join_terminals_as_before(seed, shape, share):
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    levels = rng.integers(0, TOP + 1, (3, *shape)).astype(np.uint8)
    for axis in range(3):
        np.moveaxis(levels[axis], axis, 0)[0] = 0
    terminals = (rng.random(shape) < share).astype(np.uint8)
    asked = np.flatnonzero(terminals)
    edges = list(edges_of(levels))
    raised, highest = levels.copy(), np.empty(shape, np.uint8)
    join_strongest(raised, terminals, np.uint8(TOP), highest)
    assert highest.ravel().tolist() == [
        max([0, *(level for u, v, level in edges if w in (u, v))]) for w in range(count)
    ]
    # The forest over what the raised edges join, in which every voxel has a part.
    names = components(count, list(edges_of(raised)), TOP)
    parent, level = np.empty(count, np.uint32), np.empty(count, np.uint8)
    parts = np.array(names, np.uint32).reshape(shape)
    spanning.span(raised, parts, parent, level)
    for least in range(1, TOP + 1):
        expected = components(count, edges, least)
        tops = joined(parent, level, least)
        assert partition([tops[names[w]] for w in asked]) == partition(
            [expected[w] for w in asked]
        )


def test_the_worked_cycle_of_the_docstring():
    parent, level = empty_forest(3)
    # A path 0 -2- 1 -1- 2, then 0 -3- 2: the cycle 0-1-2 loses its edge of level 1.
    insert(parent, level, [(0, 1, 2)])
    assert (parent.tolist(), level.tolist()) == ([0, 0, 2], [0, 2, 0])
    insert(parent, level, [(1, 2, 1)])
    assert (parent.tolist(), level.tolist()) == ([0, 0, 0], [0, 2, 1])
    insert(parent, level, [(0, 2, 3)])
    assert parent.tolist() == [0, 0, 0]
    assert level.tolist() == [0, 2, 3]
    assert partition(joined(parent, level, 1)) == [[0, 1, 2]]
    assert partition(joined(parent, level, 2)) == [[0, 1, 2]]
    assert partition(joined(parent, level, 3)) == [[0, 2], [1]]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(edges=st.lists(edge, max_size=40))
def test_components_at_every_level_are_those_of_the_graph(edges):
    parent, level = empty_forest(12)
    insert(parent, level, edges)
    for least in range(1, TOP + 1):
        tops = joined(parent, level, least)
        assert partition(tops) == partition(components(12, edges, least))
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
