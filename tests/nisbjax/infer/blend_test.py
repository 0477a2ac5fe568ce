"""Weights of windows and their sums against the formulas, written the slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer.blend import Sweep, window_weights
from nisbjax.infer.windows import Grid


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


@given(
    st.tuples(*[st.integers(3, 9)] * 3),
    st.tuples(*[st.integers(2, 4)] * 3),
    st.sampled_from([0.0, 0.5, 0.75]),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_sweep_gives_the_weighted_mean(shape, window, overlap, slab, threads):
    window = tuple(min(w, s) for w, s in zip(window, shape, strict=True))
    grid = Grid(shape, window, overlap)
    draw = np.random.default_rng(sum(shape))
    predicted = {
        start: draw.random((2, *window), np.float32)
        for start in grid.touching(Box.whole(shape))
    }
    weights = window_weights(window)
    sums, total = np.zeros((2, *shape)), np.zeros(shape)
    for (x, y, z), values in predicted.items():
        for i, j, k in np.ndindex(*window):
            sums[:, x + i, y + j, z + k] += values[:, i, j, k] * weights[i, j, k]
            total[x + i, y + j, z + k] += weights[i, j, k]
    want = sums / total

    sweep = Sweep(
        Box.whole(shape),
        channels=2,
        planes=window[0] + slab,
        weights=weights,
        threads=threads,
    )
    taken, at = [], 0
    for start in grid.touching(Box.whole(shape)):
        while at + slab <= start[0]:
            taken.append(sweep.take(at, at + slab, np.dtype(np.float32)))
            at += slab
        sweep.add(start, predicted[start])
    taken.append(sweep.take(at, shape[0], np.dtype(np.float32)))
    sweep.close()
    np.testing.assert_allclose(np.concatenate(taken, 1), want, rtol=2e-6)


def test_uint8_stands_for_value_times_255_rounded():
    sweep = Sweep(
        Box.whole((1, 1, 3)), channels=1, planes=2, weights=window_weights((1, 1, 3))
    )
    sweep.add((0, 0, 0), np.array([[[[0, 0.5, 1]]]], np.float32))
    taken = sweep.take(0, 1, np.dtype(np.uint8))
    sweep.close()
    assert taken.tolist() == [[[[0, 128, 255]]]]  # 127.5 rounds to the even 128


def test_an_unknown_blend_is_refused():
    with pytest.raises(InputError, match="predict.blend='gauss' is not one"):
        window_weights((2, 2, 2), "gauss")
