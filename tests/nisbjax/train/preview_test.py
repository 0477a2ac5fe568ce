"""The picture of a crop: what stands where, in which colour."""

import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.data.targets import Examples
from nisbjax.offsets import OFFSETS_6, SHORT_RANGE
from nisbjax.train.preview import Planes, mid_planes, picture

RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (127, 127, 127)


def planes(channels):
    """A 6 x 4 x 5 crop: channel 0 joins everything, channel 4 is predicted, z unknown."""
    shapes = ((6, 4), (6, 5), (4, 5))
    images = tuple(np.full((*s, 1), 0.2, np.float32) for s in shapes)
    targets, valid, predictions = [], [], []
    for row, shape in enumerate(shapes):
        target = np.zeros((*shape, channels), bool)
        target[..., 0] = True
        known = np.ones((*shape, channels), bool)
        known[:2] = row > 0  # two columns of the first row's plane are unlabeled
        likely = np.zeros((*shape, channels), np.float32)
        likely[..., 4 % channels] = 1
        targets.append(target)
        valid.append(known)
        predictions.append(likely)
    return Planes(images, tuple(targets), tuple(valid), tuple(predictions))


def count(pixels, colour):
    return int((np.abs(pixels.astype(int) - colour).max(-1) <= 1).sum())


def columns(pixels, number):
    """The middle of each, so that none shows its neighbour."""
    parts = np.array_split(pixels, number, axis=1)
    return [part[:, 50:-50] for part in parts]


def test_planes_are_the_middle_ones_across_z_y_and_x_of_the_first_crop():
    x, y, z = np.indices((6, 4, 5), dtype=np.float32)
    place = np.stack([100 * x + 10 * y + z, 1000 + 0 * x])  # the second is not shown
    even = place[..., None] % 2 == 0
    images, targets, valid, logits = map(
        jnp.asarray, (place[..., None], even, ~even, np.log(place[..., None] + 1))
    )
    labels = jnp.zeros(place.shape, jnp.int32)
    found = mid_planes(Examples(images, labels, targets, valid, None), logits)
    across_z, across_y, across_x = (np.asarray(p)[..., 0] for p in found.images)
    # Of 6 x 4 x 5 voxels the middle ones are 3, 2 and 2; sigmoid(ln(v + 1)) is
    # (v + 1) / (v + 2).
    np.testing.assert_array_equal(across_z, (100 * x + 10 * y)[:, :, 0] + 2)
    np.testing.assert_array_equal(across_y, (100 * x + z)[:, 0] + 20)
    np.testing.assert_array_equal(across_x, (10 * y + z)[0] + 300)
    for values, wanted, known, likely in zip(*found, strict=True):
        np.testing.assert_array_equal(wanted, np.asarray(values) % 2 == 0)
        np.testing.assert_array_equal(known, np.asarray(values) % 2 == 1)
        want = (np.asarray(values) + 1) / (np.asarray(values) + 2)
        np.testing.assert_allclose(likely, want, rtol=1e-5)


def test_six_channels_stand_beside_the_input_in_two_groups():
    pixels = picture(planes(6), OFFSETS_6)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    grey, target, prediction, far_target, far_prediction = columns(pixels, 5)
    assert count(grey, (51, 51, 51)) > 3000  # 0.2 of 255
    assert count(target, RED) > 3000 and count(target, GREEN) == 0
    # Of six columns in the first plane of three, two are unknown.
    share = count(target, GREY) / (count(target, RED) + count(target, GREY))
    assert 0.02 < share < 0.2
    assert count(prediction, RED) == count(prediction, GREEN) == 0
    # Channel 4 is the second of its group.
    assert count(far_prediction, GREEN) > 3000 and count(far_target, RED) == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels_fits(channels):
    offsets = (*SHORT_RANGE, (0, 0, -4))[:channels]
    pixels = picture(planes(channels), offsets)
    groups = -(-channels // 3)
    assert pixels.shape[1] == round((1 + 2 * groups) * 2.4 * 80)
    assert count(columns(pixels, 1 + 2 * groups)[1], RED) > 3000
