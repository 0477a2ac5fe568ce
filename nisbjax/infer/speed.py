"""How fast the network is on this device: one forward pass, timed.

An estimate of hours is worth the few seconds that this takes; neither reference system has one.
"""

import time
from typing import Any

import jax
import numpy as np

from nisbjax.infer.network import Network
from nisbjax.typing import Triple

_MOST = 10  # passes
_SECONDS = 3.0  # in which no other is begun


def forward_seconds(network: Network, shape: Triple) -> float:
    """Seconds of a forward pass of one image, compiled before; the best of a few.

    Args:
      network: its kernels are XLA's.
      shape: of the image.
    """
    images = np.zeros((1, *shape, network.in_channels), np.float32)
    run: Any = jax.jit(network.apply)
    jax.block_until_ready(run(network.params, images))
    taken: list[float] = []
    while len(taken) < _MOST and sum(taken) < _SECONDS:
        started = time.perf_counter()
        jax.block_until_ready(run(network.params, images))
        taken.append(time.perf_counter() - started)
    return min(taken)
