"""Boxes, grids of boxes, and window positions, against counting voxel by voxel."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid, fit_box, window_starts

coordinates = st.integers(-6, 9)
boxes = st.builds(
    lambda a, b: Box(tuple(map(min, a, b)), tuple(map(max, a, b))),
    st.tuples(coordinates, coordinates, coordinates),
    st.tuples(coordinates, coordinates, coordinates),
)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def voxels(box):
    """The set of voxels of a box, one by one."""
    ranges = [range(a, b) for a, b in zip(box.start, box.stop, strict=True)]
    return {(x, y, z) for x in ranges[0] for y in ranges[1] for z in ranges[2]}


def test_a_box_says_what_it_holds():
    box = Box((1, 2, 3), (4, 4, 9))
    assert box.shape == (3, 2, 6)
    assert box.size == 36 and not box.empty
    assert box.slices == (slice(1, 4), slice(2, 4), slice(3, 9))
    assert str(box) == "1:4,2:4,3:9" and Box.parse(str(box)) == box
    assert Box.whole((5, 6, 7)) == Box((0, 0, 0), (5, 6, 7))
    assert Box((3, 0, 0), (1, 2, 2)).shape == (0, 2, 2)
    assert Box((3, 0, 0), (1, 2, 2)).empty


def test_a_halo_is_added_and_clipped():
    box = Box((1, 2, 3), (4, 4, 9))
    assert box.grow(1, 2) == Box((0, 1, 2), (6, 6, 11))
    assert box.grow((1, 0, 3), (0, 5, 1)) == Box((0, 2, 0), (4, 9, 10))
    assert box.grow(2, 2).clip((5, 5, 10)) == Box((0, 0, 1), (5, 5, 10))
    assert box.shift((1, -2, 0)) == Box((2, 0, 3), (5, 2, 9))
    assert box.relative_to((1, 2, 3)) == Box((0, 0, 0), (3, 2, 6))


@given(boxes, boxes)
def test_algebra_is_that_of_sets_of_voxels(a, b):
    assert len(voxels(a)) == a.size
    assert voxels(a.intersect(b)) == voxels(a) & voxels(b)
    if not b.empty:
        assert a.contains(b) == (voxels(b) <= voxels(a))
    inside = {v for v in voxels(a) if all(0 <= i < 5 for i in v)}
    assert voxels(a.clip((5, 5, 5))) == inside
    assert a.shift(b.start).relative_to(b.start) == a
    assert Box.parse(str(a)) == a


def test_a_box_reads_what_its_slices_read():
    values = np.arange(60).reshape(3, 4, 5)
    box = Box((1, 0, 2), (3, 2, 4))
    # 20 x + 5 y + z
    assert values[box.slices].tolist() == [[[22, 23], [27, 28]], [[42, 43], [47, 48]]]


@pytest.mark.parametrize("text", ["", "1:2", "1:2,3:4", "a:b,1:2,3:4", "1:2,3:4,5"])
def test_another_form_is_refused(text):
    with pytest.raises(InputError, match="wanted x0:x1,y0:y1,z0:z1 in voxels"):
        Box.parse(text)


def test_a_grid_in_c_order():
    # x: 0:2 2:3, y: 0:2, z: 0:3 3:4
    assert [str(b) for b in box_grid((3, 2, 4), (2, 2, 3))] == [
        "0:2,0:2,0:3",
        "0:2,0:2,3:4",
        "2:3,0:2,0:3",
        "2:3,0:2,3:4",
    ]
    with pytest.raises(InputError, match=r"boxes of shape \(2, 0, 3\) were asked for"):
        box_grid((3, 2, 4), (2, 0, 3))


@given(shapes, shapes)
def test_a_grid_covers_every_voxel_once(shape, box_shape):
    count = np.zeros(shape, int)
    for box in box_grid(shape, box_shape):
        assert not box.empty and Box.whole(shape).contains(box)
        count[box.slices] += 1
    assert (count == 1).all()


@given(shapes, shapes, st.integers(1, 900))
def test_a_fitted_box_is_aligned_and_cannot_grow(shape, chunk, budget):
    box = fit_box(shape, chunk, 2.0, float(budget))
    chunk = tuple(min(c, s) for c, s in zip(chunk, shape, strict=True))
    for size, piece, whole in zip(box, chunk, shape, strict=True):
        assert size == whole or (size % piece == 0 and size < whole)
    assert 2 * math.prod(box) <= budget or box == chunk
    for axis in range(3):
        larger = list(box)
        larger[axis] = min(box[axis] + chunk[axis], shape[axis])
        assert larger[axis] == box[axis] or 2 * math.prod(larger) > budget


def test_a_fitted_box_grows_its_shortest_axis_first():
    # 64^3 chunks of 4 bytes are 1 MiB each: 9 MB hold 8 of them, a cube.
    assert fit_box((3000, 3000, 2250), (64, 64, 64), 4.0, 9e6) == (128, 128, 128)
    # A thin volume is covered on z at once, and then grows in x and y.
    four_chunks = 4.0 * 64 * 64 * 20
    thin = fit_box((3000, 3000, 20), (64, 64, 64), 1.0, four_chunks)
    assert thin == (128, 128, 20)
    # One chunk where nothing fits.
    assert fit_box((100, 100, 100), (64, 32, 16), 4.0, 1.0) == (64, 32, 16)


def test_windows_of_the_liconn_volumes():
    """LICONN is 3000 x 3000 x 2250 voxels, its tuning volume 1350 planes deep."""
    x, z, tuned = (window_starts(s, 128, 64) for s in (3000, 2250, 1350))
    assert (len(x), len(z), len(tuned)) == (46, 35, 21)
    assert len(x) ** 2 * len(z) == 74_060
    assert len(x) ** 2 * len(tuned) == 44_436
    # (3000 - 128) / 64 = 44.9: 45 on the stride grid and one that ends at the face.
    assert x[:3] == (0, 64, 128) and x[-2:] == (44 * 64, 3000 - 128)


def test_windows_of_short_axes():
    assert window_starts(10, 4, 3) == (0, 3, 6)  # 6 + 4 ends at the face itself
    assert window_starts(11, 4, 3) == (0, 3, 6, 7)
    assert window_starts(4, 4, 2) == (0,)
    assert window_starts(5, 4, 8) == (0, 1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_windows_cover_an_axis(size, window, stride):
    if window > size:
        with pytest.raises(InputError, match="was asked for on an axis"):
            window_starts(size, window, stride)
        return
    starts = window_starts(size, window, min(stride, window))
    covered = {v for s in starts for v in range(s, s + window)}
    assert covered == set(range(size))
    assert list(starts) == sorted(set(starts))


def test_a_stride_of_zero_is_refused():
    with pytest.raises(InputError, match="window of 4 voxels with stride 0"):
        window_starts(10, 4, 0)
