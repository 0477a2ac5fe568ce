"""Grey values that become 0 and 1."""

import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.data.intensity import UNBOUNDED, intensity_range, normalized
from nisbjax.errors import InputError
from nisbjax.store.volume import from_array


def image(values, dtype=np.uint8):
    return from_array(
        np.asarray(values, dtype).reshape(2, 2, 1, 1), "xyzc", source="img"
    )


def test_bytes_are_divided_by_255():
    assert intensity_range(image([3, 4, 5, 6]), "divide_255") == (0.0, 255.0)
    grey = jnp.asarray(image([0, 51, 102, 255]).read()[None])
    got = normalized(grey, jnp.array([[0.0, 255.0, 0, 1]]))
    np.testing.assert_allclose(got.ravel(), [0, 0.2, 0.4, 1], rtol=1e-6)


@pytest.mark.parametrize("normalize", ["min_max", "percentile"])
def test_the_whole_range_by_default(normalize):
    ranges = intensity_range(image([300, 400, 700, 500], np.uint16), normalize)
    assert ranges == (300.0, 700.0)
    grey = jnp.array([300, 400, 700, 500], jnp.uint16).reshape(1, 2, 2, 1, 1)
    got = normalized(grey, jnp.array([[*ranges, 0, 1]]))
    np.testing.assert_allclose(got.ravel(), [0, 0.25, 1, 0.5])


def test_percentiles_clip_what_lies_beyond():
    # Of 0, 10, 20, 90: place 3 x 50 / 100 = 1.5 lies between 10 and 20; 0 becomes 0.
    low, high = intensity_range(image([90, 10, 0, 20]), "percentile", (0, 50))
    assert (low, high) == (0.0, 15.0)
    grey = jnp.array([0, 7.5, 20, 90]).reshape(1, 2, 2, 1, 1)
    within, free = jnp.array([[low, high, 0, 1]]), jnp.array([[low, high, *UNBOUNDED]])
    np.testing.assert_allclose(normalized(grey, within).ravel(), [0, 0.5, 1, 1])
    free = normalized(grey, free)
    np.testing.assert_allclose(free.ravel(), [0, 0.5, 20 / 15, 6], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite_voxels_decide_and_the_others_count_as_the_lowest(bad, caplog):
    volume = image([2, bad, 6, 4], np.float32)
    assert intensity_range(volume, "percentile") == (2.0, 6.0)
    assert "img: 1 of 4 voxels are NaN or Inf; they count as 2" in caplog.text
    assert intensity_range(volume, "percentile", (50, 100)) == (4.0, 6.0)
    got = normalized(jnp.asarray(volume.read()[None]), jnp.array([[2.0, 6, 0, 1]]))
    np.testing.assert_allclose(got.ravel(), [0, 0, 1, 0.5])
    got = normalized(jnp.asarray(volume.read()[None]), jnp.array([[4.0, 6, 0, 1]]))
    np.testing.assert_allclose(got.ravel(), [0, 0, 1, 0])


def test_input_errors():
    with pytest.raises(
        InputError, match="img holds uint16; divide_255 wants uint8; set"
    ):
        intensity_range(image([1, 2, 3, 4], np.uint16), "divide_255")
    with pytest.raises(
        InputError, match="img holds the value 7 alone; wanted an image"
    ):
        intensity_range(image([7, 7, 7, 7]), "percentile")
    with pytest.raises(
        InputError, match="data.normalize is 'zscore'; wanted one of div"
    ):
        intensity_range(image([1, 2, 3, 4]), "zscore")
    nothing = image([np.nan, np.inf, -np.inf, np.nan], np.float32)
    with pytest.raises(InputError, match="img holds no finite value, only NaN"):
        intensity_range(nothing, "min_max")
    with pytest.raises(InputError, match="holds bool; wanted grey values as integers"):
        intensity_range(image([0, 1, 1, 0], bool), "min_max")
    for between in ((50, 50), (90, 10), (-1, 50), (0, 101), (np.nan, 1), (1, 2, 3)):
        with pytest.raises(InputError, match=r"data.percentiles is .*the lower one fi"):
            intensity_range(image([1, 2, 3, 4]), "percentile", between)
    with pytest.raises(InputError, match="percentiles 25 and 50 are both 7; wanted"):
        intensity_range(image([7, 7, 7, 9]), "percentile", (25, 50))
    for values in ([0, 1e300, 1, 2], [1e-320, 0, 0, 0]):
        with pytest.raises(InputError, match="a range that float32 does not hold"):
            intensity_range(image(values, np.float64), "min_max")
