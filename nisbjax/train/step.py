"""One optimizer step as one compiled program over a device mesh.

Image bytes and integer labels go in; normalisation, augmentation, erosion, affinities,
forward, backward and update are a single `jax.jit` with donated state (pjit's successor).
The reference systems augment on CPU workers and run the update eagerly.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int32, UInt8

from nisbjax import devices
from nisbjax.train import ema, precision

Apply = Callable[[Any, Array], Float32[Array, "b x y z c"]]
Prepare = Callable[[Any, Any, Any], tuple[Array, Array, Array]]
Objective = Callable[[Array, Array, Array], tuple[Float32[Array, ""], dict[str, Any]]]


class TrainState(NamedTuple):
    """Everything that a step changes; all of it stands in the checkpoint."""

    step: Int32[Array, ""]
    params: Any
    ema: Any
    optimizer: Any
    scale: precision.LossScale


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The functions and numbers that make a step.

    Attributes:
      apply: (params, images) -> logits at full resolution.
      prepare: (sample keys [b], images uint8, labels) -> images, targets, valid.
      objective: (logits, targets, valid) -> loss and named scalars.
      optimizer: its update is added to the parameters.
      ema_decay: see `ema.update`.
      ema_warmup: updates that copy.
      accumulate: micro-batches for one update; their gradients are averaged.
      scaled: whether overflowing steps are skipped (fp16) or reported (others).
    """

    apply: Apply
    prepare: Prepare
    objective: Objective
    optimizer: optax.GradientTransformation
    ema_decay: float
    ema_warmup: int
    accumulate: int = 1
    scaled: bool = False


def sample_keys(seed: int, step: Int32[Array, ""], count: int) -> Array:
    """One key for each sample of a step: functions of (seed, step, sample) alone."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))


def initial_state(
    params: Any, optimizer: optax.GradientTransformation, loss_precision: str
) -> TrainState:
    """Step 0: the average starts as a copy of the weights."""
    copied = jax.tree.map(jnp.array, params)
    scale = precision.initial_scale(loss_precision)
    return TrainState(jnp.int32(0), params, copied, optimizer.init(params), scale)


def make_train_step(recipe: Recipe, seed: int, mesh: Mesh) -> Callable:
    """Compiles (state, images, labels) -> (state, scalars); the state is donated.

    Args:
      recipe: what a step does.
      seed: of the run.
      mesh: the batch is split over its `data` axis, the state replicated.

    Returns:
      A jitted function of a `TrainState`, images uint8 [b x y z c] and labels int32
      [b x y z] with b = accumulate * batch. Scalars: `loss`, `grad_norm`, `loss_scale`,
      `finite`, and those of the objective. A step whose gradients are not finite leaves
      weights, average and optimizer as they were.
    """
    whole, split = devices.replicated(mesh), devices.split_batch(mesh)

    def loss(params, keys, images, labels, scale):
        images, targets, valid = recipe.prepare(keys, images, labels)
        value, scalars = recipe.objective(recipe.apply(params, images), targets, valid)
        return value * scale, (value, scalars)

    def micro_batch(total, batch, params, scale):
        (_, (value, scalars)), grads = jax.value_and_grad(loss, has_aux=True)(
            params, *batch, scale
        )
        return jax.tree.map(jnp.add, total, grads), {"loss": value, **scalars}

    def step(
        state: TrainState,
        images: UInt8[Array, "b i j k c"],
        labels: Int32[Array, "b i j k"],
    ) -> tuple[TrainState, dict[str, Array]]:
        keys = sample_keys(seed, state.step, images.shape[0])
        grads = jax.tree.map(jnp.zeros_like, state.params)
        batch = (keys, images, labels)
        if recipe.accumulate == 1:
            grads, scalars = micro_batch(grads, batch, state.params, state.scale.scale)
        else:
            parts = jax.tree.map(
                lambda a: a.reshape(recipe.accumulate, -1, *a.shape[1:]), batch
            )
            grads, scalars = jax.lax.scan(
                lambda g, part: micro_batch(g, part, state.params, state.scale.scale),
                grads,
                parts,
            )
            scalars = jax.tree.map(lambda s: s.mean(axis=0), scalars)
        divisor = state.scale.scale * recipe.accumulate
        grads = jax.tree.map(lambda g: g / divisor, grads)
        finite = precision.all_finite(grads) & jnp.isfinite(scalars["loss"])
        updates, optimizer = recipe.optimizer.update(
            grads, state.optimizer, state.params
        )
        params = optax.apply_updates(state.params, updates)
        average = ema.update(
            state.ema,
            params,
            state.step + 1,
            decay=recipe.ema_decay,
            warmup=recipe.ema_warmup,
        )
        kept = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, average, optimizer),
            (state.params, state.ema, state.optimizer),
        )
        scale = state.scale
        if recipe.scaled:
            scale = precision.next_scale(scale, finite)
        scalars |= {
            "grad_norm": optax.global_norm(grads),
            "loss_scale": state.scale.scale,
            "finite": finite,
        }
        return TrainState(state.step + 1, *kept, scale), scalars

    return jax.jit(
        step,
        in_shardings=(whole, split, split),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )


def make_validation_step(recipe: Recipe, prepare: Prepare, mesh: Mesh) -> Callable:
    """Compiles (params, images, labels) -> scalars, without augmentation.

    Args:
      recipe: its `apply` and `objective` are used.
      prepare: as the recipe's, without augmentation.
      mesh: as in training.
    """
    whole, split = devices.replicated(mesh), devices.split_batch(mesh)

    def step(
        params: Any,
        images: UInt8[Array, "b i j k c"],
        labels: Int32[Array, "b i j k"],
    ) -> dict[str, Array]:
        keys = sample_keys(0, jnp.int32(0), images.shape[0])
        images, targets, valid = prepare(keys, images, labels)
        logits = recipe.apply(params, images)
        value, scalars = recipe.objective(logits, targets, valid)
        return {"loss": value, **scalars, "accuracy": _accuracy(logits, targets, valid)}

    return jax.jit(step, in_shardings=(whole, split, split), out_shardings=whole)


def _accuracy(
    logits: Array, targets: Bool[Array, "..."], valid: Bool[Array, "..."]
) -> Float32[Array, ""]:
    right = ((logits > 0) == targets) & valid
    return right.sum() / jnp.maximum(valid.sum(), 1).astype(jnp.float32)
