"""Compiled: the mutex watershed, edge by edge, with lists of who may not join whom.

A cluster is a tree in `parent`; beside its root stands a ring of half-edges: one for each
repulsive edge that has been taken and has an end in the cluster. Two clusters are kept apart
where the shorter ring holds a half whose other end lies in the other cluster; two that join
link their rings in one step. So nothing is renamed when clusters join, where Wolf et al.
(ECCV 2018) and `mwatershed` hold a set of partners for each. Voxels 0 to 3, repulsion 0-2 and
1-3 taken first, then attraction 0-1:

    halves    0: 0>2   1: 2>0   2: 1>3   3: 3>1      edge k has halves 2k and 2k + 1
    rings     0: (0)   1: (2)   2: (1)   3: (3)
    0 joins 1 0: (0 2)          2: (1)   3: (3)      0 and 2, 0 and 3, are apart now
    2-1?      ring of 2: half 1 goes to 0, whose root is that of 1: they stay apart

A ring is walked from its newest half; what is found moves to the front, and of neighbours in
it that lead to one cluster all but one are dropped.
"""

from typing import NamedTuple, no_type_check

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from nisbjax.decode.kernels import kernel, part

_AHEAD = 12  # edges, of which memory is asked for what they will read


class Graph(NamedTuple):
    """Which edges there are, in what order.

    Attributes:
      values: [c x y z], positions in `ranks`, less the channel's `base`.
      ranks: 1 = strongest, 0 = says nothing.
      base: of each channel.
      repels: whether a channel repels; else it attracts.
      offsets: [c 3], from the voxel at which an edge is stored to its other one.
      steps: [c], the same in flat indices.
      strides: [3], of the voxels whose repulsive edges count.
      mask: [x y z], or of size 0.
      both: whether a masked voxel takes the edges that are stored at their other voxel.
    """

    values: np.ndarray
    ranks: np.ndarray
    base: np.ndarray
    repels: np.ndarray
    offsets: np.ndarray
    steps: np.ndarray
    strides: np.ndarray
    mask: np.ndarray
    both: bool


class Clusters(NamedTuple):
    """Trees of voxels, and the rings of their roots.

    Attributes:
      parent: of each voxel; at a root -(voxels), at a voxel on background the lowest number.
      ring_of: two numbers for each voxel, of a root's ring: the half whose next one is the
        first, and how many there are.
      rings: three numbers for each repulsive edge: voxel << bits | channel, and the halves
        that come after its two.
      seeded: whether a root holds a seed, or of size 0.
    """

    parent: np.ndarray
    ring_of: np.ndarray
    rings: np.ndarray
    seeded: np.ndarray


@no_type_check
@intrinsic
def fetch(context, array, index):
    """Asks memory for an element that will be read soon."""

    def generate(context, builder, signature, arguments):
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        at = builder.gep(values.data, [arguments[1]])
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        how = [ir.Constant(number, i) for i in (1, 3, 1)]  # to write, keep, data
        builder.call(ask, [builder.bitcast(at, byte), *how])
        return context.get_dummy_value()

    return types.none(array, types.int64), generate


@no_type_check
@part
def channel_bits(channels):
    """Of an edge, which is voxel << bits | channel."""
    bits = 0
    while 1 << bits < channels:
        bits += 1
    return bits


@no_type_check
@part
def _rows(graph, c):
    """First and last voxels of a channel's edges on each axis, and their steps."""
    shape = graph.values.shape[1:]
    o = graph.offsets[c]
    bounds = np.empty((3, 3), np.int64)
    for axis in range(3):
        step = graph.strides[axis] if graph.repels[c] else 1
        first = max(0, -o[axis])
        bounds[axis, 0] = (first + step - 1) // step * step
        bounds[axis, 1] = min(shape[axis], shape[axis] - o[axis])
        bounds[axis, 2] = step
    return bounds


@no_type_check
@part
def _masked(graph, c, x, y, z):
    if not graph.mask[x, y, z]:
        return True
    o = graph.offsets[c]
    return graph.both and not graph.mask[x + o[0], y + o[1], z + o[2]]


@no_type_check
@kernel
def mark(graph, parent):
    """Makes a cluster of each voxel with an attractive edge, unless it has one."""
    ny, nz = graph.values.shape[2:]
    nothing = np.iinfo(parent.dtype).min
    masked = graph.mask.size > 0
    for c in range(graph.values.shape[0]):
        if graph.repels[c]:
            continue
        step = graph.steps[c]
        base, rows = graph.base[c], _rows(graph, c)
        for x in range(rows[0, 0], rows[0, 1]):
            for y in range(rows[1, 0], rows[1, 1]):
                row = (x * ny + y) * nz
                for z in range(rows[2, 0], rows[2, 1]):
                    if graph.ranks[base + graph.values[c, x, y, z]] == 0:
                        continue
                    if masked and _masked(graph, c, x, y, z):
                        continue
                    if parent[row + z] == nothing:
                        parent[row + z] = -1
                    if parent[row + z + step] == nothing:
                        parent[row + z + step] = -1


@no_type_check
@kernel
def collect(graph, parent, channels, ranks, place, edges):
    """Sorts the edges of some channels and ranks, between voxels that are no background.

    Edges of one rank come in order of their channels, then in C order of the voxels at
    which they are stored.

    Args:
      channels: first, and behind the last.
      ranks: first and last.
      place: [2 r], of attractive edges and repulsive ones; where the next edge of each rank
        goes is in the first row. Advanced; both rows only where edges are counted.
      edges: receives voxel << bits | channel; of size 0 to count only.
    """
    ny, nz = graph.values.shape[2:]
    bits = channel_bits(graph.base.size)
    nothing = np.iinfo(parent.dtype).min
    masked = graph.mask.size > 0
    first, last = ranks
    values, table = graph.values.reshape(-1), graph.ranks
    for c in range(channels[0], channels[1]):
        step = graph.steps[c]
        base, rows, channel = graph.base[c], _rows(graph, c), c * parent.size
        repels = graph.repels[c]
        kind = 1 if repels and edges.size == 0 else 0
        for x in range(rows[0, 0], rows[0, 1], rows[0, 2]):
            for y in range(rows[1, 0], rows[1, 1], rows[1, 2]):
                row = (x * ny + y) * nz
                for z in range(rows[2, 0], rows[2, 1], rows[2, 2]):
                    rank = table[base + values[channel + row + z]]
                    if rank < first or rank > last:
                        continue
                    if masked and _masked(graph, c, x, y, z):
                        continue
                    if parent[row + z] == nothing or parent[row + z + step] == nothing:
                        continue
                    at = place[kind, rank - first]
                    if edges.size:
                        edges[at] = (row + z) << bits | c
                    place[kind, rank - first] = at + 1


@no_type_check
@part
def _root(parent, v):
    """The root of a voxel; paths are halved on the way."""
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
def _after(rings, half):
    return np.int64(rings[3 * (half >> 1) + 1 + (half & 1)])


@no_type_check
@part
def _link(rings, half, after):
    rings[3 * (half >> 1) + 1 + (half & 1)] = after


@no_type_check
@part
def _apart(parent, ring_of, rings, steps, bits, a, b):
    """Whether the ring of root a leads to root b."""
    tail = np.int64(ring_of[2 * a])
    before, last = tail, np.int64(-1)
    for _ in range(np.int64(ring_of[2 * a + 1])):
        half = _after(rings, before)
        edge = np.int64(rings[3 * (half >> 1)])
        v = edge >> bits
        if not half & 1:
            v += steps[edge & ((1 << bits) - 1)]
        found = _root(parent, v)
        if found == b:
            if half == tail:
                ring_of[2 * a] = before  # so that it is first
            elif before != tail:
                _link(rings, before, _after(rings, half))
                _link(rings, half, _after(rings, tail))
                _link(rings, tail, half)
            return True
        if found == last:
            _link(rings, before, _after(rings, half))
            if half == tail:
                ring_of[2 * a] = before
            ring_of[2 * a + 1] -= 1
        else:
            before, last = half, found
    return False


@no_type_check
@part
def _add(ring_of, rings, a, half):
    """Puts a half-edge in front of the ring of root a."""
    if ring_of[2 * a + 1] == 0:
        ring_of[2 * a] = half
        _link(rings, half, half)
    else:
        tail = np.int64(ring_of[2 * a])
        _link(rings, half, _after(rings, tail))
        _link(rings, tail, half)
    ring_of[2 * a + 1] += 1


@no_type_check
@part
def _join(parent, ring_of, rings, a, b):
    """Hangs root b at root a."""
    parent[a] += parent[b]
    parent[b] = a
    if ring_of[2 * b + 1] > 0:
        if ring_of[2 * a + 1] == 0:
            ring_of[2 * a] = ring_of[2 * b]
        else:
            one, other = np.int64(ring_of[2 * a]), np.int64(ring_of[2 * b])
            after = _after(rings, one)
            _link(rings, one, _after(rings, other))
            _link(rings, other, after)
        ring_of[2 * a + 1] += ring_of[2 * b + 1]


@no_type_check
@part
def _fetch_roots(parent, ring_of, u, v):
    """Asks memory for what lies one step above two voxels."""
    a, b = np.int64(parent[u]), np.int64(parent[v])
    if a == b and a >= 0:
        return
    a, b = a if a >= 0 else u, b if b >= 0 else v
    fetch(parent, a)
    fetch(parent, b)
    fetch(ring_of, 2 * a)
    fetch(ring_of, 2 * b)


@no_type_check
@kernel
def take(edges, steps, repels, clusters, used):
    """Takes edges in their order: joins along attractive ones, notes repulsive ones.

    Args:
      edges: of `collect`.
      steps: of each channel, from the voxel at which an edge is stored to its other one.
      repels: whether a channel does.
      used: how many repulsive edges the rings hold.

    Returns:
      How many they hold now.
    """
    parent, ring_of, rings = clusters.parent, clusters.ring_of, clusters.rings
    seeded = clusters.seeded
    bits = channel_bits(repels.size)
    channel = (1 << bits) - 1
    with_seeds = seeded.size > 0
    for i in range(edges.size):
        if i + 2 * _AHEAD < edges.size:
            edge = np.int64(edges[i + 2 * _AHEAD])
            fetch(parent, edge >> bits)
            fetch(parent, (edge >> bits) + steps[edge & channel])
            edge = np.int64(edges[i + _AHEAD])
            v = edge >> bits
            _fetch_roots(parent, ring_of, v, v + steps[edge & channel])
        edge = np.int64(edges[i])
        v = edge >> bits
        a = _root(parent, v)
        b = _root(parent, v + steps[edge & channel])
        if a == b or (with_seeds and seeded[a] and seeded[b]):
            continue
        if repels[edge & channel]:
            rings[3 * used] = edge
            _add(ring_of, rings, a, 2 * used)
            _add(ring_of, rings, b, 2 * used + 1)
            used += 1
            continue
        short, long = a, b
        if ring_of[2 * a + 1] > ring_of[2 * b + 1]:
            short, long = b, a
        if _apart(parent, ring_of, rings, steps, bits, short, long):
            continue
        if parent[a] > parent[b]:  # fewer voxels
            a, b = b, a
        _join(parent, ring_of, rings, a, b)
        if with_seeds:
            seeded[a] |= seeded[b]
    return used


@no_type_check
@kernel
def number(parent, ring_of):
    """Turns trees into labels 1..N in C order of first voxels, 0 = background, in place.

    Args:
      parent: of `Clusters`; receives the labels.
      ring_of: likewise, zeroed; room for the labels of roots.
    """
    nothing = np.iinfo(parent.dtype).min
    for v in range(parent.size):
        root = _root(parent, v)
        if root != v:
            parent[v] = root
    count = 0
    for v in range(parent.size):
        root = np.int64(parent[v])
        if root == nothing:
            parent[v] = 0
            continue
        root = root if root >= 0 else v
        if ring_of[root] == 0:
            count += 1
            ring_of[root] = count
        parent[v] = ring_of[root]
