"""UpKern on kernels small enough to interpolate by hand."""

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.models.foreign.upkern import upkern


def network(kernel, other=4):
    return {
        "conv1": {"weight": kernel, "bias": np.ones(1, np.float32)},
        "conv2": {"weight": np.ones((1, other), np.float32)},
    }


def test_kernels_are_interpolated_and_the_rest_copied():
    kernel = np.array([0, 5, 10], np.float32).reshape(1, 3, 1, 1, 1)  # n i j k c
    target = network(np.zeros((1, 5, 1, 1, 1)))
    grown = upkern(network(kernel), target)
    # Output i reads at (i + 0.5) * 3 / 5 - 0.5 = -0.2, 0.4, 1, 1.6, 2.2, clamped to 0..2.
    np.testing.assert_allclose(
        grown["conv1"]["weight"].ravel(), [0, 2, 5, 8, 10], atol=1e-5
    )
    np.testing.assert_array_equal(grown["conv2"]["weight"], np.ones((1, 4)))


def test_axes_are_separable_and_a_constant_stays():
    kernel = np.random.default_rng(0).random((3, 3, 3, 2)).astype(np.float32)
    grown = upkern(network(kernel), network(np.zeros((5, 5, 5, 2))))
    assert grown["conv1"]["weight"].dtype == np.float32
    np.testing.assert_allclose(grown["conv1"]["weight"][2, 2, 2], kernel[1, 1, 1])
    flat = upkern(network(kernel * 0 + 3), network(np.zeros((7, 5, 3, 2))))
    np.testing.assert_allclose(flat["conv1"]["weight"], 3, rtol=1e-6)


def test_other_differences_are_refused():
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    with pytest.raises(InputError, match=r"conv2.weight of shape \(1, 4\), wanted"):
        upkern(network(kernel), network(kernel, other=5))
    with pytest.raises(InputError, match="networks that differ in conv3"):
        upkern(network(kernel), network(kernel) | {"conv3": {}})
    with pytest.raises(InputError, match="conv1.weight of shape"):
        upkern(network(kernel), network(np.zeros((5, 5, 5, 3))))
