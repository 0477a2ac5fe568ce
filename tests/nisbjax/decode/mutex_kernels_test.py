"""The rings that keep clusters apart: the drawing in the module, step by step."""

import numpy as np
import pytest

from nisbjax.decode import mutex_kernels
from nisbjax.decode.mutex_kernels import Clusters

# Two channels along z: short edges of step 1, long ones of step 2; one bit for the channel.
STEPS, REPELS = np.array([1, 2]), np.array([False, True])
LONG_0, LONG_1 = 0 << 1 | 1, 1 << 1 | 1  # repulsion 0-2 and 1-3
SHORT_0, SHORT_1, SHORT_2 = 0 << 1, 1 << 1, 2 << 1  # attraction 0-1, 1-2, 2-3


def clusters(voxels, edges):
    return Clusters(
        np.full(voxels, -1, np.int32),
        np.zeros(2 * voxels, np.uint32),
        np.zeros(3 * edges, np.uint32),
        np.empty(0, bool),
    )


def ring(of, root):
    """The halves of a root's ring, the newest first."""
    tail, count = of.ring_of[2 * root : 2 * root + 2].tolist()
    halves, half = [], tail
    for _ in range(count):
        half = int(of.rings[3 * (half >> 1) + 1 + (half & 1)])
        halves.append(half)
    return halves


def take(of, edges, used=0):
    edges = np.array(edges, np.uint32)
    return mutex_kernels.take(edges, STEPS, REPELS, of, used)


def root(of, v):
    while of.parent[v] >= 0:
        v = of.parent[v]
    return v


def test_the_drawing():
    of = clusters(4, 2)
    used = take(of, [LONG_0, LONG_1])
    assert used == 2
    assert [ring(of, v) for v in range(4)] == [[0], [2], [1], [3]]
    used = take(of, [SHORT_0], used)
    first = root(of, 0)
    assert first == root(of, 1) and of.parent[first] == -2
    assert sorted(ring(of, first)) == [0, 2]
    assert take(of, [SHORT_1], used) == 2  # 1-2 comes too late
    assert root(of, 2) == 2
    take(of, [SHORT_2], used)  # nothing keeps 2 and 3 apart
    assert root(of, 2) == root(of, 3) != first
    assert sorted(ring(of, root(of, 2))) == [1, 3]


def test_repulsion_within_a_cluster_says_nothing():
    of = clusters(4, 2)
    assert take(of, [SHORT_0, SHORT_1, LONG_0]) == 0
    assert ring(of, root(of, 0)) == []


def test_of_halves_to_one_cluster_one_is_kept():
    # {0, 1} is kept apart from {2, 3} twice, {4, 5} from {6, 7} twice. A third channel, of
    # step 3, attracts 1 and 4: the ring of 0 and 1 is walked to its end, and of its two
    # halves, which both lead to {2, 3}, one is dropped. The ring of {4, 5} is not walked.
    steps, repels = np.array([1, 2, 3]), np.array([False, True, False])
    short, long, third = ({v: v << 2 | c for v in range(8)} for c in range(3))
    of = clusters(8, 4)
    edges = [long[v] for v in (0, 1, 4, 5)] + [short[v] for v in (0, 2, 4, 6)]
    used = mutex_kernels.take(np.array(edges, np.uint32), steps, repels, of, 0)
    assert [len(ring(of, root(of, v))) for v in (0, 2, 4, 6)] == [2, 2, 2, 2]
    last = np.array([third[1]], np.uint32)
    assert mutex_kernels.take(last, steps, repels, of, used) == used
    assert root(of, 1) == root(of, 4) not in (root(of, 2), root(of, 6))
    assert len(ring(of, root(of, 1))) == 1 + 2


@pytest.mark.parametrize("channels, bits", [(1, 0), (2, 1), (3, 2), (6, 3), (9, 4)])
def test_bits_for_the_channel(channels, bits):
    assert mutex_kernels.channel_bits(channels) == bits


def test_numbers_come_in_the_order_of_first_voxels():
    # Voxels 1 and 3 are one cluster with root 3, 2 is alone, 0 is background.
    parent = np.array([np.iinfo(np.int32).min, 3, -1, -2], np.int32)
    mutex_kernels.number(parent, np.zeros(8, np.uint32))
    assert parent.tolist() == [0, 1, 2, 1]
