"""What stored numbers say: tables, by hand."""

import numpy as np
import pytest

from nisbjax.decode.edge_weights import ranks, weights_of
from nisbjax.errors import InputError


def above_half(values, repels):
    """Attraction by what exceeds a half, repulsion by what lacks to it."""
    values = np.clip(values, 0, 1)
    return 0.5 - values if repels else values - 0.5


def looked_up(found, channel):
    values = found.values[channel].astype(np.int64) + found.base[channel]
    return found.weights[values].ravel()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_weights_of_floats(dtype):
    stored = np.array([0.75, 0.25, np.nan, 1.0], dtype)
    affinities = np.stack([stored, stored]).reshape(2, 1, 1, 4)
    found = weights_of(affinities, (False, True), above_half)
    # Attraction .75 - .5, nothing below a half, nothing of NaN, 1 - .5; repulsion .5 - .25.
    assert looked_up(found, 0).tolist() == [0.25, 0, 0, 0.5]
    assert looked_up(found, 1).tolist() == [0, 0.25, 0, 0]


def test_uint8_means_a_share_of_255():
    affinities = np.array([255, 51, 0], np.uint8).reshape(1, 1, 1, 3)
    found = weights_of(affinities, (True,), above_half)
    assert looked_up(found, 0).tolist() == pytest.approx([0, 0.5 - 51 / 255, 0.5])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_ranks_begin_at_the_largest_weight(dtype):
    stored = np.array([255, 204, 153, 153], np.float64)  # 1, .8, .6 of 255
    if dtype != np.uint8:
        stored /= 255
    affinities = stored.astype(dtype).reshape(1, 1, 1, 4)
    found = weights_of(affinities, (False,), above_half)
    places = ranks(found)[found.values.ravel().astype(np.int64)]
    # Of a table, every number between 1 and .6 that it holds has a rank of its own.
    assert places[0] == 1 and places[0] < places[1] < places[2] == places[3]
    assert (ranks(found)[found.weights == 0] == 0).all()


def test_another_type_is_refused():
    affinities = np.zeros((1, 1, 1, 1), np.float64)
    with pytest.raises(
        InputError, match="are float64; wanted float16, float32, or uint8"
    ):
        weights_of(affinities, (False,), above_half)  # pyright: ignore
