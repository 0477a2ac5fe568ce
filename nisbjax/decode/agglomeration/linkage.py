"""Compiled: the strongest pair of touching segments joins, again and again.

Hierarchical agglomeration of a graph (average linkage: Sokal and Michener 1958; quantiles of
a histogram: Funke et al., "Large scale image segmentation with structured loss", PAMI 2018,
waterz). The links of a joined segment are those of its parts together. waterz keeps a queue
with stale entries and takes equal scores in the order of an unstable heap; here each pair has
one place in the heap, and equal ones are taken in a stated order.

A pair lies in the lists of its two segments. When two segments join, the shorter list is
walked: each pair there is found again under its new name, or joins the one that has it
already. So a pair is walked at most log2(pairs) times.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Integer

from nisbjax.decode.kernels import kernel, part

_IDLE, _GONE = -1, -2  # places of pairs that are not in the heap


class Graph(NamedTuple):
    """Pairs and segments, as they change while segments join.

    Attributes:
      low, high: labels of the first fragments of a pair.
      touching, number, total: as `Pairs`.
      histogram: of affinities by pair and bin; of no pairs where totals count.
      parent: of a label; its segment's root is its own.
      head, tail, length: of a root's list of half pairs, 2 e and 2 e + 1.
      after: the next half pair of the list; -1 at its end.
      slots: hash table of the pairs of roots; -1 = free.
      heap: pairs that may join, strongest first.
      place: of a pair in the heap.
      strength: of a pair.
    """

    low: Integer[np.ndarray, " e"]
    high: Integer[np.ndarray, " e"]
    touching: Bool[np.ndarray, " e"]
    number: Int[np.ndarray, " e"]
    total: Int[np.ndarray, " e"]
    histogram: Int32[np.ndarray, "p b"]
    parent: Integer[np.ndarray, " l"]
    head: Integer[np.ndarray, " l"]
    tail: Integer[np.ndarray, " l"]
    length: Integer[np.ndarray, " l"]
    after: Integer[np.ndarray, " h"]
    slots: Integer[np.ndarray, " s"]
    heap: Integer[np.ndarray, " e"]
    place: Integer[np.ndarray, " e"]
    strength: Float64[np.ndarray, " e"]


@no_type_check
@part
def _root(parent, v):
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return np.int64(v)


@no_type_check
@part
def _before(g, e, f):
    """Whether a pair comes out of the heap before another one."""
    if g.strength[e] != g.strength[f]:
        return g.strength[e] > g.strength[f]
    return e < f


@no_type_check
@part
def _settle(g, size, e, at):
    """Moves a pair from a place in the heap to where it belongs."""
    while at > 0:
        up = (at - 1) >> 1
        if not _before(g, e, np.int64(g.heap[up])):
            break
        g.heap[at] = g.heap[up]
        g.place[g.heap[at]] = at
        at = up
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        if down + 1 < size and _before(
            g, np.int64(g.heap[down + 1]), np.int64(g.heap[down])
        ):
            down += 1
        if not _before(g, np.int64(g.heap[down]), e):
            break
        g.heap[at] = g.heap[down]
        g.place[g.heap[at]] = at
        at = down
    g.heap[at] = e
    g.place[e] = at


@no_type_check
@part
def _remove(g, size, e, place):
    """Takes a pair out of the heap; returns the heap's size."""
    at = np.int64(g.place[e])
    g.place[e] = place
    if at < 0:
        return size
    size -= 1
    last = np.int64(g.heap[size])
    if last != e:
        _settle(g, size, last, at)
    return size


@no_type_check
@part
def _weigh(g, e, quantile):
    """Strength of a pair: its mean, or a quantile of its affinities."""
    if g.histogram.shape[0] == 0:
        return g.total[e] / g.number[e]
    bins = g.histogram.shape[1]
    count = np.int64(0)
    for b in range(bins):
        count += g.histogram[e, b]
    wanted = np.int64(quantile * count / 100) + 1
    seen = np.int64(0)
    for b in range(bins):
        seen += g.histogram[e, b]
        if seen >= wanted:
            return (b + 0.5) / bins
    return (bins - 0.5) / bins


@no_type_check
@part
def _enter(g, size, e, least, quantile):
    """Puts a pair where its links say, in the heap or out of it; returns the size."""
    if g.touching[e]:
        g.strength[e] = _weigh(g, e, quantile)
        if g.strength[e] > least:
            at = np.int64(g.place[e])
            if at < 0:
                at = size
                size += 1
            _settle(g, size, e, at)
            return size
    return _remove(g, size, e, _IDLE)


@no_type_check
@part
def _slot(g, a, b):
    """Where the hash table holds the pair of two roots, or has room for it."""
    mask = g.slots.size - 1
    low, high = min(a, b), max(a, b)
    h = low * 0x1E3779B97F4A7C15 ^ high * 0x2545F4914F6CDD1D
    at = (h ^ (h >> 31)) & mask
    while g.slots[at] >= 0:
        e = g.slots[at]
        if g.place[e] != _GONE:
            r, s = _root(g.parent, g.low[e]), _root(g.parent, g.high[e])
            if min(r, s) == low and max(r, s) == high:
                break
        at = (at + 1) & mask
    return at


@no_type_check
@part
def _hash(g):
    """Makes the hash table of the pairs that are left; returns how many."""
    g.slots[:] = -1
    used = 0
    for e in range(g.low.size):
        if g.place[e] != _GONE:
            a, b = _root(g.parent, g.low[e]), _root(g.parent, g.high[e])
            g.slots[_slot(g, a, b)] = e
            used += 1
    return used


@no_type_check
@part
def _add(g, e, f):
    """Adds the links of a pair to those of another one."""
    g.number[e] += g.number[f]
    g.total[e] += g.total[f]
    g.touching[e] |= g.touching[f]
    if g.histogram.shape[0]:
        g.histogram[e] += g.histogram[f]


@no_type_check
@part
def _join(g, size, a, b, least, quantile, used):
    """Hands the pairs of root b to root a; returns sizes of heap and hash table."""
    i = np.int64(g.head[b])
    while i >= 0:
        f = i >> 1
        if g.place[f] != _GONE:
            other = g.low[f] if i & 1 else g.high[f]
            c = _root(g.parent, other)
            at = _slot(g, a, c)
            e = np.int64(g.slots[at])
            if e >= 0:
                kept, gone = min(e, f), max(e, f)
                _add(g, kept, gone)
                size = _remove(g, size, gone, _GONE)
                g.slots[at] = kept
                size = _enter(g, size, kept, least, quantile)
            else:
                g.slots[at] = f
                used += 1
        i = np.int64(g.after[i])
    if g.head[b] >= 0:
        if g.head[a] >= 0:
            g.after[g.tail[a]] = g.head[b]
        else:
            g.head[a] = g.head[b]
        g.tail[a] = g.tail[b]
        g.length[a] += g.length[b]
    g.parent[b] = a
    return size, used


@no_type_check
@kernel
def agglomerate(g, least, quantile):
    """Joins the strongest pair that touches, until none is stronger than `least`.

    Equal pairs: that which holds the link between the lowest fragments first, by its place
    among the pairs that there were at the beginning.

    Args:
      g: a `Graph`, filled but for its lists, hash table, heap and strengths; consumed.
      least: strength that a pair must exceed.
      quantile: in percent, where there are histograms.

    Returns:
      The number of joins; `g.parent` says which.
    """
    for e in range(g.low.size):
        for half, label in ((2 * e, g.low[e]), (2 * e + 1, g.high[e])):
            g.after[half] = -1
            if g.head[label] < 0:
                g.head[label] = half
            else:
                g.after[g.tail[label]] = half
            g.tail[label] = half
            g.length[label] += 1
    used = _hash(g)
    size, joins = 0, 0
    for e in range(g.low.size):
        size = _enter(g, size, e, least, quantile)
    while size:
        e = np.int64(g.heap[0])
        size = _remove(g, size, e, _GONE)
        a, b = _root(g.parent, g.low[e]), _root(g.parent, g.high[e])
        if g.length[a] < g.length[b]:
            a, b = b, a
        if used + g.length[b] > g.slots.size - (g.slots.size >> 3):
            used = _hash(g)
        size, used = _join(g, size, a, b, least, quantile, used)
        joins += 1
    return joins


@no_type_check
@kernel
def lowest(parent, table):
    """Writes the lowest label of each segment to all of its labels, flat."""
    for v in range(parent.size):
        table[v] = -1
    for v in range(parent.size):
        root = _root(parent, v)
        if table[root] < 0:
            table[root] = v  # ascending: the lowest one
        table[v] = table[root]
