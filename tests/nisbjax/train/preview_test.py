"""The picture of a crop: what stands where, in which colour."""

import numpy as np
import pytest

from nisbjax.offsets import OFFSETS_6, SHORT_RANGE
from nisbjax.train.preview import Planes, picture

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
