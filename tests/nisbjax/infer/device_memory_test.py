"""How much of a device's memory is left for sums, of devices that say what they have."""

import jax
import jax.numpy as jnp
import numpy as np

from nisbjax.infer.device_memory import device_bytes, free_bytes


class Device:
    def __init__(self, stats):
        self.memory_stats = lambda: stats


GPU = Device({"bytes_limit": 10_000_000, "bytes_in_use": 1_000_000})


def test_memory_that_is_the_hosts_is_not_counted():
    assert free_bytes(jax.devices()[0]) is None
    assert free_bytes(Device({})) is None
    assert device_bytes(None, (), Device(None), 1) is None


def test_the_network_keeps_its_room():
    program = jax.jit(lambda params, images: images.astype(jnp.float32) * params)
    images = jax.ShapeDtypeStruct((2, 50, 50), np.uint8)
    arguments = (np.float32(3), images)
    # Three batches of 5,000 bytes up and 20,000 down, no temporary arrays; nine tenths.
    left = 9_000_000 - 3 * (20_000 + 5_000)
    assert device_bytes(program, arguments, GPU, 1) == int(0.9 * left)
    # Two devices: half of the images, and answers of both.
    left = 9_000_000 - 3 * (2 * 20_000 + 2_500)
    assert device_bytes(program, arguments, GPU, 2) == int(0.9 * left)
