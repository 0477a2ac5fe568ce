"""Compiled: which edges of a mutex watershed have one fate for all biases in a range.

Two forests grow side by side as short edges come, strongest first: of what is joined
whatever the biases are, and of what may be joined by then. Each has the rings of those
long edges that surely, or possibly, came before (`mutex_kernels` says how rings work; here
they hold positions in a list of ends, so that they serve edges of a graph as well as those
of a volume). Nobody else reuses one watershed for others.

Kernels that call one another stand in one module, as in `kernels`.
"""

from typing import NamedTuple, no_type_check

import numpy as np

from nisbjax.decode.kernels import kernel, part
from nisbjax.decode.mutex_kernels import fetch

_AHEAD = 12  # edges, of which memory is asked for what they will read


class Forest(NamedTuple):
    """Trees of vertices, and the rings of their roots.

    Attributes:
      parent: of each vertex; at a root -(vertices).
      ring_of: two numbers for each vertex, of a root's ring: the half whose next one is the
        first, and how many there are.
      after: of each half of a long edge, the one that comes after it in its ring.
    """

    parent: np.ndarray
    ring_of: np.ndarray
    after: np.ndarray


class Levels(NamedTuple):
    """Edges of equal logits, side by side.

    Attributes:
      logits: of each level; falling of short edges, rising of long ones.
      starts: of each level among the edges, and their number.
    """

    logits: np.ndarray
    starts: np.ndarray


@no_type_check
@part
def _root(parent, v):
    """The root of a vertex; paths are halved on the way."""
    above = np.int64(parent[v])
    while above >= 0:
        higher = np.int64(parent[above])
        if higher < 0:
            return above
        parent[v] = higher
        v = higher
        above = np.int64(parent[v])
    return v


@no_type_check
@part
def _apart(forest, ends, a, b):
    """Whether a ring leads from one of two roots to the other."""
    parent, ring_of, after = forest
    if ring_of[2 * a + 1] > ring_of[2 * b + 1]:
        a, b = b, a
    tail = np.int64(ring_of[2 * a])
    before, last = tail, np.int64(-1)
    for _ in range(np.int64(ring_of[2 * a + 1])):
        half = np.int64(after[before])
        found = _root(parent, np.int64(ends[half ^ 1]))
        if found == b:
            if half == tail:
                ring_of[2 * a] = before  # so that it is first
            elif before != tail:
                after[before] = after[half]
                after[half] = after[tail]
                after[tail] = half
            return True
        if found == last or found == a:
            after[before] = after[half]
            if half == tail:
                ring_of[2 * a] = before
                tail = before
            ring_of[2 * a + 1] -= 1
        else:
            before, last = half, found
    return False


@no_type_check
@part
def _add(ring_of, after, a, half):
    """Puts a half-edge in front of the ring of root a."""
    if ring_of[2 * a + 1] == 0:
        ring_of[2 * a] = half
        after[half] = half
    else:
        tail = np.int64(ring_of[2 * a])
        after[half] = after[tail]
        after[tail] = half
    ring_of[2 * a + 1] += 1


@no_type_check
@part
def _keep_apart(forest, ends, k):
    """Notes long edge k, unless its ends are one."""
    a = _root(forest.parent, np.int64(ends[2 * k]))
    b = _root(forest.parent, np.int64(ends[2 * k + 1]))
    if a != b:
        _add(forest.ring_of, forest.after, a, 2 * k)
        _add(forest.ring_of, forest.after, b, 2 * k + 1)


@no_type_check
@part
def _join(forest, a, b):
    """Makes one tree, and one ring, of two roots."""
    parent, ring_of, after = forest
    if parent[a] > parent[b]:  # fewer vertices
        a, b = b, a
    parent[a] += parent[b]
    parent[b] = a
    if ring_of[2 * b + 1] > 0:
        if ring_of[2 * a + 1] == 0:
            ring_of[2 * a] = ring_of[2 * b]
        else:
            one, other = np.int64(ring_of[2 * a]), np.int64(ring_of[2 * b])
            first = after[one]
            after[one] = after[other]
            after[other] = first
        ring_of[2 * a + 1] += ring_of[2 * b + 1]


@no_type_check
@part
def _bits(channels):
    """As `mutex_kernels.channel_bits`."""
    bits = 0
    while 1 << bits < channels:
        bits += 1
    return bits


@no_type_check
@kernel
def ends_of(edges, steps, ends):
    """Voxels at both ends of edges, which are voxel << bits | channel.

    Args:
      steps: of each channel, from the voxel at which an edge is stored to its other one.
      ends: receives two for each edge.
    """
    bits = _bits(steps.size)
    channel = (np.int64(1) << bits) - 1
    for i in range(edges.size):
        edge = np.int64(edges[i])
        v = edge >> bits
        ends[2 * i] = v
        ends[2 * i + 1] = v + steps[edge & channel]


@no_type_check
@part
def _ask_for_roots(forest, ends, vertices, i):
    """Asks memory for what vertices that come soon will read, in two steps."""
    parent, ring_of, after = forest
    v = np.int64(vertices[i + 4 * _AHEAD])
    fetch(parent, v)
    fetch(ring_of, 2 * v)
    v = np.int64(vertices[i + 2 * _AHEAD])
    above = np.int64(parent[v])
    if above >= 0:
        fetch(parent, above)
        fetch(ring_of, 2 * above)
    elif ring_of[2 * v + 1] > 0:
        tail = np.int64(ring_of[2 * v])
        fetch(after, tail)
        fetch(ends, tail)


@no_type_check
@kernel
def settle(shorts, short_levels, longs, long_levels, forest):
    """The mutex watershed of a graph; of equal weights short edges come first.

    Args:
      shorts, longs: ends of edges, two each, flat, strongest first.
      short_levels, long_levels: `Levels` of weights, falling; those not above 0 say nothing.
      forest: of single vertices; grows, and in the end `parent` of each vertex is its root.
    """
    came = 0
    for level in range(short_levels.logits.size):
        weight = short_levels.logits[level]
        if weight <= 0:
            break
        while came < long_levels.logits.size and long_levels.logits[came] > weight:
            for k in range(long_levels.starts[came], long_levels.starts[came + 1]):
                _keep_apart(forest, longs, k)
            came += 1
        for i in range(short_levels.starts[level], short_levels.starts[level + 1]):
            if 2 * i + 4 * _AHEAD + 1 < shorts.size:
                for end in range(2):
                    _ask_for_roots(forest, longs, shorts, 2 * i + end)
            a = _root(forest.parent, np.int64(shorts[2 * i]))
            b = _root(forest.parent, np.int64(shorts[2 * i + 1]))
            if a != b and not _apart(forest, longs, a, b):
                _join(forest, a, b)
    parent = forest.parent
    for v in range(parent.size):
        root = _root(parent, v)
        if root != v:
            parent[v] = root
    for v in range(parent.size):
        if parent[v] < 0:
            parent[v] = v


@no_type_check
@kernel
def decide(shorts, short_levels, ends, long_levels, rule, certain, possible, undecided):
    """Joins what is joined whatever the biases are; keeps what depends on them.

    Args:
      shorts: voxel << bits | channel of short edges, strongest first.
      short_levels, long_levels: `Levels` of both.
      ends: of long edges, two each, flat, strongest first.
      rule: steps of channels; logit above which a short edge surely attracts; logit
        below which a long one surely repels; sum of two logits up to which a long edge may
        come before a short one, and below which it surely does.
      certain, possible: `Forest` of each; grow.
      undecided: receives positions of short edges.

    Returns:
      How many are undecided.
    """
    steps, attracts, repels, may_come, comes = rule
    bits = _bits(steps.size)
    channel = (np.int64(1) << bits) - 1
    maybe = surely = kept = 0
    levels = long_levels.logits.size
    for level in range(short_levels.logits.size):
        logit = short_levels.logits[level]
        while maybe < levels and long_levels.logits[maybe] + logit <= may_come:
            first, last = long_levels.starts[maybe], long_levels.starts[maybe + 1]
            for k in range(first, last):
                _keep_apart(possible, ends, k)
            maybe += 1
        while (
            surely < levels
            and long_levels.logits[surely] + logit < comes
            and long_levels.logits[surely] < repels
        ):
            first, last = long_levels.starts[surely], long_levels.starts[surely + 1]
            for k in range(first, last):
                _keep_apart(certain, ends, k)
            surely += 1
        for i in range(short_levels.starts[level], short_levels.starts[level + 1]):
            edge = np.int64(shorts[i])
            u = edge >> bits
            v = u + steps[edge & channel]
            a, b = _root(certain.parent, u), _root(certain.parent, v)
            if a == b or _apart(certain, ends, a, b):
                continue
            x, y = _root(possible.parent, u), _root(possible.parent, v)
            if x != y and logit > attracts and not _apart(possible, ends, x, y):
                _join(certain, a, b)
                _join(possible, x, y)
                continue
            if x != y:
                _join(possible, x, y)
            undecided[kept] = i
            kept += 1
    return kept
