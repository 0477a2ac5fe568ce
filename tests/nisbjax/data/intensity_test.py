"""Grey values that become 0 and 1."""

import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.data.intensity import intensity_range, normalized
from nisbjax.errors import InputError
from nisbjax.store.volume import from_array


def image(values, dtype=np.uint8):
    return from_array(
        np.asarray(values, dtype).reshape(2, 2, 1, 1), "xyzc", source="img"
    )


def test_bytes_are_divided_by_255():
    assert intensity_range(image([3, 4, 5, 6]), "divide_255") == (0.0, 255.0)
    grey = jnp.asarray(image([0, 51, 102, 255]).read()[None])
    got = normalized(grey, jnp.array([[0.0, 255.0]]))
    np.testing.assert_allclose(got.ravel(), [0, 0.2, 0.4, 1], rtol=1e-6)


def test_percentile_takes_the_volumes_own_range():
    ranges = intensity_range(image([300, 400, 700, 500], np.uint16), "percentile")
    assert ranges == (300.0, 700.0)
    grey = jnp.array([300, 400, 700, 500], jnp.uint16).reshape(1, 2, 2, 1, 1)
    got = normalized(grey, jnp.array([ranges]))
    np.testing.assert_allclose(got.ravel(), [0, 0.25, 1, 0.5])


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
