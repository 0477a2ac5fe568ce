"""Edges of an offset, found by trying every pair of voxels."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.offsets import OFFSETS_6, context, edge_slices

offsets = st.tuples(*[st.integers(-5, 5)] * 3)


@given(st.tuples(*[st.integers(1, 4)] * 3), offsets)
def test_both_ends_of_every_edge_inside(shape, offset):
    index = np.arange(np.prod(shape)).reshape(shape)
    source, destination = edge_slices(shape, offset)
    found = list(zip(index[source].ravel(), index[destination].ravel(), strict=True))
    expected = []
    for voxel in itertools.product(*map(range, shape)):
        other = tuple(v + o for v, o in zip(voxel, offset, strict=True))
        if all(0 <= v < s for v, s in zip(other, shape, strict=True)):
            expected.append((index[voxel], index[other]))
    assert found == expected
    assert index[source].shape == index[destination].shape


def test_one_edge_along_x():
    source, destination = edge_slices((3, 2, 2), (1, 0, 0))
    assert source == (slice(0, 2), slice(0, 2), slice(0, 2))
    assert destination == (slice(1, 3), slice(0, 2), slice(0, 2))


def test_an_offset_longer_than_the_volume_has_no_edge():
    values = np.zeros((3, 4, 5))
    for offset in ((3, 0, 0), (10, 0, 0), (0, -4, 0), (0, 0, -10)):
        source, destination = edge_slices(values.shape, offset)
        assert values[source].size == values[destination].size == 0


@pytest.mark.parametrize(
    "offsets, expected",
    [
        (OFFSETS_6, ((0, 0, 0), (10, 10, 10))),
        (((-1, 0, 0), (0, 2, -3)), ((1, 0, 3), (0, 2, 0))),
        (((4, 0, 0),), ((0, 0, 0), (4, 0, 0))),
    ],
)
def test_voxels_that_edges_need_around_a_crop(offsets, expected):
    assert context(offsets) == expected
