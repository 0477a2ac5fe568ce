"""How fast the network is on this device: one forward pass, timed.

An estimate of hours is worth the few seconds that this takes; neither reference system has one.
"""

import time
from typing import Any

import jax
import numpy as np

from nisbjax.infer.network import Network
from nisbjax.typing import Triple


def forward_seconds(network: Network, shape: Triple) -> float:
    """Seconds of a forward pass of one image, compiled before; the better of two.

    Args:
      network: its kernels are XLA's.
      shape: of the image.
    """
    images = np.zeros((1, *shape, network.in_channels), np.float32)
    run: Any = jax.jit(network.apply)
    jax.block_until_ready(run(network.params, images))
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        jax.block_until_ready(run(network.params, images))
        taken.append(time.perf_counter() - started)
    return min(taken)
