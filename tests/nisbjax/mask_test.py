"""The mask against the rule, voxel by voxel."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid
from nisbjax.mask import MaskSpec, require_mask
from nisbjax.store.volume import from_array

SHAPE = (6, 5, 4)


def mask_by_voxel(spec, image):
    kept = np.zeros(spec.shape, bool)
    for x, y, z in itertools.product(*map(range, spec.shape)):
        from_face = min(x, spec.shape[0] - 1 - x, y, spec.shape[1] - 1 - y)
        dark = image[x, y, z] <= spec.bg_thresh
        cut = from_face < spec.border_width and dark
        kept[x, y, z] = spec.low_z <= z < spec.high_z and not cut
    return kept


@given(
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from([0.0, 1.5, 2.0]),
    st.tuples(*[st.integers(1, 4)] * 3),
)
def test_boxes_equal_the_whole_and_the_rule(z0, z1, width, threshold, box_shape):
    image = np.random.default_rng(z0 + 5 * width).integers(0, 4, SHAPE, np.uint8)
    spec = MaskSpec(SHAPE, min(z0, z1), max(z0, z1), width, threshold)
    expected = mask_by_voxel(spec, image)
    np.testing.assert_array_equal(spec.mask_of(Box.whole(SHAPE), image), expected)
    for box in box_grid(SHAPE, box_shape):
        part = image[box.slices] if spec.touches_ring(box) else None
        np.testing.assert_array_equal(spec.mask_of(box, part), expected[box.slices])


@given(
    st.tuples(*[st.integers(0, 3)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 3),
)
def test_the_mask_of_a_part_is_that_part_of_the_whole(start, size, width):
    """Its planes count from its own first one; the ring is along the volume's faces."""
    image = np.random.default_rng(width).integers(0, 4, SHAPE, np.uint8)
    spec = MaskSpec(SHAPE, 1, 3, width, 1.0)
    box = Box.whole(SHAPE).intersect(
        Box(start, tuple(a + b for a, b in zip(start, size, strict=True)))
    )
    part, pixels = spec.inside(box), image[box.slices]
    whole = Box.whole(box.shape)
    expected = spec.mask_of(Box.whole(SHAPE), image)[box.slices]
    np.testing.assert_array_equal(part.mask_of(whole, pixels), expected)
    assert part.touches_ring(whole) == spec.touches_ring(box)
    # A part of a part counts from the part.
    again = part.inside(Box((0, 0, box.shape[2] - 1), box.shape))
    np.testing.assert_array_equal(
        again.mask_of(Box.whole(again.shape), pixels[:, :, -1:]), expected[:, :, -1:]
    )


def test_a_threshold_of_zero_still_cuts_black_voxels_of_the_ring():
    image = np.ones((3, 3, 1), np.uint8)
    image[0, 0] = image[1, 1] = 0
    kept = MaskSpec((3, 3, 1), 0, 1, 1, 0.0).mask_of(Box.whole((3, 3, 1)), image)
    # The middle voxel is black too, but not of the ring (width 1).
    assert kept[..., 0].tolist() == [[False, True, True], [True] * 3, [True] * 3]


def test_without_a_ring_no_image_is_needed():
    spec = MaskSpec(SHAPE, 1, 3, 0, 30.0)
    kept = spec.mask_of(Box.whole(SHAPE), None)
    assert kept[:, :, 1:3].all() and not kept[:, :, [0, 3]].any()
    ringed = MaskSpec(SHAPE, 0, 4, 2, 30.0)
    assert not ringed.touches_ring(Box((2, 2, 0), (4, 3, 4)))
    assert ringed.touches_ring(Box((2, 2, 0), (5, 3, 4)))


@pytest.mark.parametrize(
    "low, high, width, message",
    [
        (-1, 3, 0, "mask keeps z from -1 to 3; wanted 0 <= low_z <= high_z <= 4"),
        (3, 2, 0, "mask keeps z from 3 to 2"),
        (0, 5, 0, "mask keeps z from 0 to 5"),
        (0, 4, -1, "mask has border_width -1; wanted 0 or more voxels"),
    ],
)
def test_a_mask_outside_its_volume_is_refused(low, high, width, message):
    with pytest.raises(InputError, match=message):
        MaskSpec(SHAPE, low, high, width, 0.0)


def test_the_ring_wants_the_boxes_own_image():
    spec = MaskSpec(SHAPE, 0, 4, 1, 0.0)
    box = Box((0, 0, 0), (2, 5, 4))
    with pytest.raises(InputError, match="0:2,0:5,0:4 .* needs the source image"):
        spec.mask_of(box, None)
    with pytest.raises(InputError, match=r"shape \(6, 5, 4\) came for box 0:2,0:5"):
        spec.mask_of(box, np.zeros(SHAPE, np.uint8))


@pytest.mark.parametrize("volume", [False, True])
def test_a_mask_of_fractions_is_refused(volume):
    """NaN is not 0, and so let everything through without a word."""
    mask = np.full((2, 2, 2), np.nan, np.float32)
    given = from_array(mask, "xyz", source="m.zarr") if volume else mask
    name = "m.zarr" if volume else "the mask"
    with pytest.raises(InputError, match=f"{name} is float32; wanted truth values or"):
        require_mask(given, None, (2, 2, 2))
    for dtype in (bool, np.uint8, np.int64):
        require_mask(np.zeros((2, 2, 2), dtype), None, (2, 2, 2))
