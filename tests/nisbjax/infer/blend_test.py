"""Weights of windows against the formulas."""

import numpy as np
import pytest
from scipy import ndimage

from nisbjax.errors import InputError
from nisbjax.infer.blend import window_weights


@pytest.mark.parametrize("window", [(4, 4, 4), (5, 3, 6), (1, 2, 3)])
def test_distance_weights_are_scipys_chessboard_transform(window):
    padded = np.pad(np.ones(window, np.uint8), 1)
    inner = (slice(1, -1),) * 3
    want = ndimage.distance_transform_cdt(padded, metric="chessboard")[inner]
    np.testing.assert_array_equal(window_weights(window), want)


def test_distance_weights_of_128_run_from_1_to_64():
    weights = window_weights((128, 128, 128))
    assert weights.min() == 1 and weights.max() == 64
    assert weights[63, 64, 64] == 64 and weights[64, 64, 0] == 1


def test_bump_weights_follow_the_formula_and_keep_a_floor():
    weights = window_weights((3, 3, 3), "bump")
    # u = (i + 1) / 4 x 2 - 1 = -1/2, 0, 1/2; exp(-1 / (1 - 1/4)) / exp(-1) = exp(-1/3).
    edge = np.exp(-1 / 3)
    np.testing.assert_allclose(weights[0, 1, 1], edge, rtol=1e-6)
    np.testing.assert_allclose(weights[0, 0, 2], edge**3, rtol=1e-6)
    assert window_weights((128, 128, 128), "bump").min() == np.float32(1e-5)


def test_an_unknown_blend_is_refused():
    with pytest.raises(InputError, match="predict.blend='gauss' is not one"):
        window_weights((2, 2, 2), "gauss")
