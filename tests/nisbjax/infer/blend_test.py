"""Window positions and blending against the formulas, written the slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer.blend import Sweep, window_weights
from nisbjax.infer.windows import Grid, reflect_indices


@pytest.mark.parametrize("size, count", [(3000, 46), (2250, 35), (1350, 21), (128, 1)])
def test_window_counts_are_those_of_banis(size, count):
    # BANIS: {128 k} and {size - 128} and {64 + 128 k <= size - 128}.
    reference = {128 * k for k in range(size) if 128 * k <= size - 128}
    reference |= {size - 128}
    reference |= {64 + 128 * k for k in range(size) if 64 + 128 * k <= size - 128}
    grid = Grid((size, 128, 128), (128, 128, 128))
    assert grid.starts[0] == tuple(sorted(reference))
    assert len(grid.starts[0]) == count == grid.count


def test_an_axis_of_one_window_has_no_edge_windows():
    # PyTC: an image of 4 x 9 x 10, windows of 4, stride 2. x is covered by one window.
    # y: from -2 in steps of 2 up to 9 - 4 + 2 = 7, which is added; z: -2 to 8.
    grid = Grid((4, 9, 10), (4, 4, 4), 0.5, edge_windows=True)
    assert grid.starts == ((0,), (-2, 0, 2, 4, 6, 7), (-2, 0, 2, 4, 6, 8))
    # An axis shorter than the window is padded to it: one window there too.
    assert Grid((3, 9, 10), (4, 4, 4), 0.5, edge_windows=True).starts[0] == (0,)


def test_a_liconn_cube_has_74060_windows_and_85248_with_edge_windows():
    window = (128, 128, 128)
    assert Grid((3000, 3000, 2250), window).count == 46 * 46 * 35 == 74_060
    edged = Grid((3000, 3000, 2250), window, edge_windows=True)
    # From -64 to size - 64 in steps of 64, snapped: 48 x 48 x 37.
    assert edged.starts[2][0] == -64 and edged.starts[2][-1] == 2250 - 64
    assert edged.count == 48 * 48 * 37 == 85_248


def test_an_axis_shorter_than_the_window_is_centred_in_it():
    # 80 voxels in a window of 128: 48 more, 24 before; of 5 in 8: 1 before, 2 behind.
    assert Grid((80, 128, 5), (128, 128, 8)).starts == ((-24,), (0,), (-1,))


def test_windows_that_touch_a_box_come_in_c_order():
    grid = Grid((8, 6, 4), (4, 4, 4))  # x: 0 2 4, y: 0 2, z: 0
    assert grid.touching(Box((4, 0, 0), (6, 1, 4))) == [(2, 0, 0), (4, 0, 0)]
    assert grid.touching(Box((0, 3, 0), (1, 4, 4))) == [(0, 0, 0), (0, 2, 0)]


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


@given(st.integers(1, 7), st.integers(0, 20), st.integers(0, 20))
def test_reflection_is_that_of_numpy_pad(size, before, behind):
    want = np.pad(np.arange(size), (before, behind), mode="reflect")
    np.testing.assert_array_equal(reflect_indices(-before, size + behind, size), want)


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


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Grid((0, 4, 4), (4, 4, 4)), r"shape \(0, 4, 4\) is empty"),
        (lambda: Grid((4, 4, 4), (4, 4, 4), 1.0), "overlap 1.0 were asked"),
        (
            lambda: window_weights((2, 2, 2), "gauss"),
            "predict.blend='gauss' is not one",
        ),
    ],
)
def test_errors_say_what_came(make, text):
    with pytest.raises(InputError, match=text):
        make()
