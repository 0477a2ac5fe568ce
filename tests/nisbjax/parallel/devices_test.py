"""The mesh over four devices, and what lies where on it."""

import jax
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.parallel import devices


@pytest.mark.parametrize(
    "axes, shape",
    [
        ((("data", -1), ("space", 1)), {"data": 4, "space": 1}),
        ((("data", 2), ("space", -1)), {"data": 2, "space": 2}),
        ((("data", 4),), {"data": 4}),
    ],
)
def test_one_axis_takes_the_devices_that_are_left(axes, shape):
    assert dict(devices.make_mesh(axes).shape) == shape


def test_batches_are_split_and_weights_are_everywhere():
    mesh = devices.make_mesh((("data", -1), ("space", 1)))
    values = np.arange(8).reshape(8, 1)
    split = jax.device_put(values, devices.split_batch(mesh))
    assert [s.data.ravel().tolist() for s in split.addressable_shards] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    whole = jax.device_put(values, devices.replicated(mesh))
    assert {s.data.shape for s in whole.addressable_shards} == {(8, 1)}


@pytest.mark.parametrize(
    "axes, message",
    [
        ((("data", 3),), "wanted sizes that multiply to the number of devices"),
        ((("data", -1), ("space", -1)), "at most one of them -1"),
        ((("data", 0),), "for 4 devices; wanted sizes"),
        ((("data", 2), ("space", 1)), "needs 2 devices; here are 4"),
    ],
)
def test_another_number_of_devices_is_refused(axes, message):
    with pytest.raises(InputError, match=message):
        devices.make_mesh(axes)


def test_the_log_says_what_there_is():
    assert devices.describe() == "4 x CPU"
