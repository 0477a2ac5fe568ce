"""Affinities without a network, on volumes small enough to work out by hand."""

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.synth.baselines import intensity_affinities, true_affinities


def test_an_edge_is_as_strong_as_its_weaker_voxel():
    image = np.array([51, 255, 102], np.uint8).reshape(3, 1, 1, 1)
    # 51 / 255 = 0.2, 102 / 255 = 0.4; the last edge leaves the volume.
    affinities = intensity_affinities(image)
    np.testing.assert_allclose(affinities[0, :, 0, 0], [0.2, 0.4, 0])
    assert not affinities[1:].any()
    # Inverted: 0.8, 0, 0.6.
    dark = intensity_affinities(image, interior="dark")
    np.testing.assert_allclose(dark[0, :, 0, 0], [0, 0, 0], atol=1e-7)


def test_smoothing_keeps_what_is_flat_and_spreads_a_point():
    flat = np.full((4, 4, 4, 1), 127, np.uint8)
    smoothed = intensity_affinities(flat, sigma=1.0)
    np.testing.assert_allclose(smoothed[2, ..., :3], 127 / 255, rtol=1e-5)
    point = np.zeros((9, 9, 9, 1), np.uint8)
    point[4, 4, 4] = 255
    # Voxel and neighbour of a Gaussian with sigma 1 cut at 3: taps 0.3992, 0.2420.
    spread = intensity_affinities(point, sigma=1.0)
    taps = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    taps /= taps.sum()
    assert spread[0, 4, 4, 4] == pytest.approx(taps[3] ** 2 * taps[2], rel=1e-4)


def test_true_affinities_are_by_definition():
    labels = np.array([[[1, 1, 2, 0, 0, 3, 3]]])
    affinities = true_affinities(labels)
    np.testing.assert_array_equal(affinities[2, 0, 0], [1, 0, 0, 0, 0, 1, 0])
    assert not affinities[:2].any()


def test_an_unknown_polarity_is_refused():
    with pytest.raises(InputError, match="interior is 'grey'; wanted one of bright"):
        intensity_affinities(np.zeros((2, 2, 2, 1), np.uint8), interior="grey")
