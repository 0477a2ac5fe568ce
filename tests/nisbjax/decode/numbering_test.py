"""From a forest of runs to labels 1..N, and what becomes of them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
from hypothesis.extra import numpy as arrays

from nisbjax.decode import numbering
from nisbjax.decode.kernels import Forest


def forest(parent, foreground, joined, shape):
    """A forest from lists of bits, a row of voxels each."""
    words = np.zeros((2, *shape[:2], 1), np.uint64)
    for i, rows in enumerate((foreground, joined)):
        for (x, y), row in zip(np.ndindex(*shape[:2]), rows, strict=True):
            words[i, x, y, 0] = sum(bit << z for z, bit in enumerate(row))
    return Forest(np.array(parent, np.uint32), words[0], words[1])


def drawn():
    """As the docstring draws: two rows of four voxels; runs 0-1, 2, 3 and 4, 5-6, 7 (7 is background).

    Run 2 is alone, 4 hangs at 0, 5 hangs at 3.
    """
    return forest(
        parent=[0, 1, 2, 3, 0, 3, 6, 7],
        foreground=[[1, 1, 1, 1], [1, 1, 1, 0]],
        joined=[[0, 1, 0, 0], [0, 0, 1, 0]],
        shape=(1, 2, 4),
    )


def test_roots_are_counted_in_order():
    ranks = np.zeros(2, np.uint64)
    wanted = np.array([2, 3], np.uint32)
    # Roots 0, 2 and 3: two components have begun with that of voxel 2, three with 3.
    assert numbering.count_roots(*drawn(), 0, 1, wanted, ranks) == 3
    assert ranks.tolist() == [2, 3]


def test_labels_follow_first_voxels():
    found = drawn()
    nothing = np.empty(0, np.uint32), np.empty(0, np.uint64)
    last = numbering.write_labels(*found, 0, 1, np.uint64(0), *nothing)
    assert last == 3
    assert found.parent.tolist() == [1, 1, 2, 3, 1, 3, 3, 0]


def test_a_run_whose_root_lies_before_takes_the_label_that_is_given():
    """The second of two planes: voxel 2 hangs at voxel 0 of the plane before."""
    found = forest(
        parent=[0, 1, 0, 3],
        foreground=[[1, 1], [1, 1]],
        joined=[[0, 0], [0, 0]],
        shape=(2, 1, 2),
    )
    cross = np.array([2], np.uint32), np.array([1], np.uint64)
    # Labels 1 and 2 are given before; voxel 3 begins label 3.
    assert numbering.write_labels(*found, 1, 2, np.uint64(2), *cross) == 3
    assert found.parent.tolist()[2:] == [1, 3]


def test_planes_are_flattened_to_their_roots():
    found = forest(
        parent=[0, 0, 1, 2],
        foreground=[[1, 1, 1, 1]],
        joined=[[0, 0, 0, 0]],
        shape=(1, 1, 4),
    )
    numbering.flatten_plane(found.parent, found.joined, 0)
    assert found.parent.tolist() == [0, 0, 0, 0]


def test_attached_roots_point_to_the_roots_of_the_volume():
    # 5 hangs at 3 and 3 at 1: in ascending order 3 is right before 5 asks.
    parent = np.array([0, 1, 2, 1, 4, 3], np.uint32)
    numbering.resolve(parent, np.array([3, 5], np.uint32))
    assert parent.tolist() == [0, 1, 2, 1, 4, 1]


@hypothesis.given(
    arrays.arrays(np.uint32, st.integers(1, 40), elements=st.integers(0, 6))
)
def test_measured_are_first_voxels_and_sizes(drawn_ids):
    # Numbered by first appearance, as labels are.
    order = list(dict.fromkeys(int(i) for i in drawn_ids if i))
    labels = np.array([order.index(i) + 1 if i else 0 for i in drawn_ids], np.uint32)
    first, size = np.zeros((2, len(order) + 1), np.int64)
    numbering.measure(labels, first, size)
    for label in range(1, len(order) + 1):
        assert first[label] == labels.tolist().index(label)
    assert size.tolist() == np.bincount(labels, minlength=len(order) + 1).tolist()


@hypothesis.given(
    arrays.arrays(np.uint32, st.integers(1, 40), elements=st.integers(0, 6))
)
def test_relabelling_is_a_look_at_the_table(labels):
    table = np.array([0, 7, 0, 3, 9, 1, 2], np.uint32)
    result = np.empty(labels.size, np.uint32)
    numbering.relabel(labels, table, result)
    assert result.tolist() == [int(table[i]) for i in labels]
