"""Edges in order: by hand, and against Python's sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nisbjax.decode import ordered_edges
from nisbjax.decode.masked_edges import MaskedEdges

# Three voxels along z: its edges lie on axis 2 alone, 3 v + 2.
LINE = np.zeros((3, 1, 1, 3), np.uint8)
LINE[2, 0, 0] = 7, 9, 8  # between 0 and 1, 1 and 2, and beyond the volume


def between(values, weakest, strongest, edges=None, fixed=None):
    kind = values.dtype.type
    return ordered_edges.edges_between(
        values, kind(weakest), kind(strongest), edges or MaskedEdges(), fixed
    ).tolist()


@pytest.mark.parametrize(
    "weakest, strongest, found",
    [
        (0, 255, [5, 2]),  # 9 of voxel 1, then 7 of voxel 0
        (7, 255, [5]),  # more than 7
        (0, 8, [2]),  # at most 8
        (9, 255, []),
    ],
)
def test_a_line(weakest, strongest, found):
    assert between(LINE, weakest, strongest) == found


def test_edges_are_read_where_they_are_stored():
    # At the upper voxel: 9 between 0 and 1, 8 between 1 and 2; named by the lower one.
    assert between(LINE, 0, 255, MaskedEdges(1)) == [2, 5]


def test_masked_and_fixed_edges_are_left_out():
    mask = np.array([[[1, 0, 1]]], bool)
    assert between(LINE, 0, 255, MaskedEdges(0, mask, mask_edges="source")) == [
        2
    ]  # stored at 0
    assert between(LINE, 0, 255, MaskedEdges(0, mask)) == []
    # Stored at the upper voxel: of 0-1 at the masked one, of 1-2 at 2.
    assert between(LINE, 0, 255, MaskedEdges(1, mask, mask_edges="source")) == [5]
    fixed = np.array([4, 4, 0], np.uint32)
    assert between(LINE, 0, 255, fixed=fixed) == [5]


def test_numbers_that_share_a_bucket_are_put_in_order_and_equal_ones_stay():
    # Of 32 bits 256 numbers share a bucket: 901, 902, 902 and 900 are sorted within it.
    line = np.zeros((3, 1, 1, 5), np.uint32)
    line[2, 0, 0] = 901, 902, 902, 900, 0
    found = between(line, 0, np.iinfo(np.uint32).max)
    assert found == [3 * v + 2 for v in (1, 2, 0, 3)]


def literal(values, weakest, strongest, destination):
    """Every edge as (falling value, lower voxel, axis), sorted by Python."""
    shape = values.shape[1:]
    found = []
    for v, place in enumerate(np.ndindex(shape)):
        for axis in range(3):
            upper = list(place)
            upper[axis] += 1
            if upper[axis] == shape[axis]:
                continue
            value = int(values[(axis, *(upper if destination else place))])
            if weakest < value <= strongest:
                found.append((-value, v, axis))
    return [3 * v + axis for _, v, axis in sorted(found)]


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    data=st.data(),
    destination=st.booleans(),
    # Of 32 bits the values share buckets, and are put in order within them.
    kind=st.sampled_from([np.uint8, np.uint16, np.uint32]),
)
def test_any_volume(shape, data, destination, kind):
    top = int(np.iinfo(kind).max)
    one = st.sampled_from([0, 1, 2, 3, top - 1, top])
    values = data.draw(arrays.arrays(kind, (3, *shape), elements=one))
    weakest = data.draw(st.sampled_from([0, 2]))
    found = between(values, weakest, top, MaskedEdges(int(destination)))
    assert found == literal(values, weakest, top, destination)
