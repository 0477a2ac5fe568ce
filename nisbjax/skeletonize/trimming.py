"""One label's joined skeleton becomes trees without short dead ends.

Where boxes cut a neurite lengthwise both trace it, and their paths meet again and again: of
two ways through the same neurite the thinner one goes. A larger loop, by which a neurite
comes back to itself, is only opened. (kimimaro's `postprocess` draws straight lines through
loops, removes rings, and its `remove_ticks` may take a bridge between two parts.)
"""

import collections
import heapq
import itertools

import numpy as np
from jaxtyping import Float, Int64
from scipy.spatial import KDTree

Graph = dict[int, dict[int, float]]  # node -> its neighbours, with the length to each


def graph_of(
    edges: Int64[np.ndarray, "e 2"], lengths: Float[np.ndarray, " e"]
) -> Graph:
    """The graph of some edges."""
    graph: Graph = {}
    for (a, b), length in zip(edges.tolist(), lengths.tolist(), strict=True):
        graph.setdefault(a, {})[b] = length
        graph.setdefault(b, {})[a] = length
    return graph


def edges_of(graph: Graph) -> list[tuple[int, int]]:
    """Each edge of a graph once."""
    return [(a, b) for a, near in graph.items() for b in near if a < b]


def open_loops(
    graph: Graph,
    closing: Int64[np.ndarray, "k 2"],
    position_nm: Float[np.ndarray, "n 3"],
    radius_nm: Float[np.ndarray, " n"],
) -> None:
    """Takes a way out of each loop, or an edge of it: trees are left, and none falls apart.

    Args:
      graph: changed in place.
      closing: edges without which there is no loop, in the order in which each is given
        back and its loop opened.
      position_nm: of all nodes.
      radius_nm: of all nodes. A way from branching to branching goes as a whole where it is
        within the radius of the rest of its loop: of the long ones the thinnest.
    """
    # All go first and come back one at a time, so that each closes one loop and no other.
    pairs = closing.tolist()
    lengths = [_cut(graph, a, b) for a, b in pairs]
    to_come = collections.Counter(node for pair in pairs for node in pair)
    for (a, b), length in zip(pairs, lengths, strict=True):
        to_come.subtract((a, b))
        loop = _path(graph, a, b)
        graph[a][b] = graph[b][a] = length
        if not loop:  # it joins two pieces
            continue
        # A node to which an edge will come back has to stay for it.
        branching = {n for n in loop if len(graph[n]) + to_come[n] > 2}
        way = [a, b]
        if len(branching) > 1:  # else a way would be all that there is
            way = _superfluous(graph, loop, branching, position_nm, radius_nm) or way
        for pair in itertools.pairwise(way):
            _cut(graph, *pair)


def remove_ticks(graph: Graph, shortest_nm: float) -> None:
    """Takes away branches that end and are shorter, the shortest first.

    A skeleton without a branching keeps what it has, however short.

    Args:
      graph: without loops; changed in place.
      shortest_nm: that may stay.
    """
    heap = [
        tick
        for node, near in graph.items()
        if len(near) == 1 and (tick := _tick(graph, node))[0] < shortest_nm
    ]
    heapq.heapify(heap)
    while heap:
        length, end = heapq.heappop(heap)
        found = _tick(graph, end)
        if found[0] != length:  # the branching that it came from is none any more
            if found[0] < shortest_nm:
                heapq.heappush(heap, found)
            continue
        node = end
        while len(graph[node]) == 1:
            (above,) = graph[node]
            _cut(graph, node, above)
            node = above


def _tick(graph: Graph, end: int) -> tuple[float, int]:
    """Length from an end to the next branching, infinite without one; and the end."""
    before, node, total = -1, end, 0.0
    while node == end or len(graph[node]) == 2:
        above = [(n, length) for n, length in graph[node].items() if n != before]
        before, (node, step) = node, above[0]
        total += step
    return (total if len(graph[node]) > 2 else float("inf")), end


def _superfluous(
    graph: Graph,
    loop: list[int],
    branching: set[int],
    position_nm: Float[np.ndarray, "n 3"],
    radius_nm: Float[np.ndarray, " n"],
) -> list[int]:
    """The way of a loop that runs inside the rest of it; [] where none does.

    Ways of less than half of the longest one's length are not asked: a rung of a ladder is
    short, and without it both rails would stay.
    """
    start = next(i for i, node in enumerate(loop) if node in branching)
    loop = [*loop[start:], *loop[: start + 1]]
    ways: list[list[int]] = []
    for before, node in itertools.pairwise(loop):
        if before in branching:
            ways.append([before])
        ways[-1].append(node)

    def length(way: list[int]) -> float:
        return sum(graph[a][b] for a, b in itertools.pairwise(way))

    longest = max(map(length, ways))
    long = [way for way in ways if 2 * length(way) >= longest]
    long.sort(key=lambda way: (radius_nm[way].min(), -length(way), way))
    for way in long:
        inside = set(way[1:-1])
        rest = [node for node in loop if node not in inside]
        if _within(way[1:-1], rest, position_nm, radius_nm):
            return way
    return []


def _cut(graph: Graph, a: int, b: int) -> float:
    """Takes an edge away; its length."""
    del graph[a][b]
    return graph[b].pop(a)


def _path(graph: Graph, start: int, stop: int) -> list[int]:
    """Nodes of a way of the fewest edges; [] where there is none."""
    above = {start: start}
    rim = [start]
    while rim and stop not in above:
        beyond = []
        for node in rim:
            for near in graph[node]:
                if near not in above:
                    above[near] = node
                    beyond.append(near)
        rim = beyond
    if stop not in above:
        return []
    found = [stop]
    while found[-1] != start:
        found.append(above[found[-1]])
    return found


def _within(
    way: list[int],
    other: list[int],
    position_nm: Float[np.ndarray, "n 3"],
    radius_nm: Float[np.ndarray, " n"],
) -> bool:
    """Whether each node of a way is in the ball of a node of another, or has it in
    its own."""
    if not way:
        return True
    distance, nearest = KDTree(position_nm[other]).query(position_nm[way])
    reach = np.maximum(radius_nm[way], radius_nm[np.asarray(other)[nearest]])
    return bool((distance <= reach).all())
