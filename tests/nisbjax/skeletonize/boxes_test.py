"""Boxes that share a plane: hand-drawn cuts, and what holds of any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.geometry import Box
from nisbjax.skeletonize.boxes import boxes


def test_cuts_by_hand():
    """7 voxels have 6 steps: two boxes of 3; 8 voxels 7 steps: cut after 2 and 4."""
    two = boxes(Box((1, 0, 0), (8, 1, 1)), (3, 9, 9))
    assert [str(box.read) for box in two] == ["1:5,0:1,0:1", "4:8,0:1,0:1"]
    assert [str(box.own) for box in two] == ["1:4,0:1,0:1", "4:8,0:1,0:1"]
    three = boxes(Box.whole((8, 2, 1)), (3, 1, 9))
    assert [(b.read.start[0], b.read.stop[0]) for b in three] == [
        (0, 3),
        (2, 5),
        (4, 8),
    ]


SIZES = st.tuples(*[st.integers(1, 20)] * 3)


@given(shape=SIZES, largest=st.tuples(*[st.integers(1, 8)] * 3))
def test_they_tile_share_one_plane_and_are_never_slivers(shape, largest):
    found = boxes(Box.whole(shape), largest)
    owned = np.zeros(shape, int)
    for box in found:
        owned[box.own.slices] += 1
        assert box.read.contains(box.own)
        for size, steps, most in zip(shape, box.read.shape, largest, strict=True):
            assert steps <= most + 1
            # at least half of the largest, or all there is
            assert steps - 1 >= min(most, size - 1) // 2
        for other in found:
            common = box.read.intersect(other.read)
            if box.own.start != other.own.start and not common.empty:
                assert min(common.shape) == 1
    assert (owned == 1).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1)])
def test_a_volume_of_one_plane(shape):
    (box,) = boxes(Box.whole(shape), (4, 4, 4))
    assert box.read == box.own == Box.whole(shape)
