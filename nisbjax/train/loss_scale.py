"""Torch's dynamic loss scaling, for training in float16.

Parameters, norms, logits and losses are float32 in every mode (`models/`, `losses`). Under
`fp16` the loss is scaled as torch's GradScaler does: 65536 at first, doubled after 2000
good steps, halved where a gradient overflows, and such a step is skipped.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

_GROW_AFTER = 2000


class LossScale(NamedTuple):
    scale: Float32[Array, ""]
    good_steps: Int32[Array, ""]


def initial_scale(precision: str) -> LossScale:
    """65536 for fp16; 1, which never changes, otherwise."""
    scale = 65536.0 if precision == "fp16" else 1.0
    return LossScale(jnp.float32(scale), jnp.int32(0))


def next_scale(state: LossScale, finite: Bool[Array, ""]) -> LossScale:
    """The scale after a step whose gradients were or were not finite."""
    grown = state.good_steps + 1 >= _GROW_AFTER
    scale = jnp.where(grown, 2 * state.scale, state.scale)
    good = jnp.where(grown, 0, state.good_steps + 1)
    return LossScale(
        jnp.where(finite, scale, state.scale / 2), jnp.where(finite, good, 0)
    )


def all_finite(tree: Any) -> Bool[Array, ""]:
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all()
