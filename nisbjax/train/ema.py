"""Exponential moving average of the weights, as PyTC's EMAWeightsCallback.

The first `warmup` updates copy the weights, later ones mix: there is no ramp. We count
optimizer steps, PyTC counts micro-batches (the same without accumulation), and ours is kept
in the checkpoint and used for validation and prediction, where PyTC tests with raw weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def update(
    ema: Any, params: Any, updates: Int[Array, ""], *, decay: float, warmup: int
) -> Any:
    """The average after one more update.

    Args:
      ema: so far, float32 leaves.
      params: after the optimizer's step.
      updates: counted with this one: the first is 1; up to `warmup` the weights are copied.
      decay: d of ema <- d ema + (1 - d) params.
    """
    d = jnp.where(updates <= warmup, 0.0, decay).astype(jnp.float32)
    return jax.tree.map(lambda e, p: d * e + (1 - d) * p, ema, params)
