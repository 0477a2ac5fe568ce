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
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32

from nisbjax.data import targets
from nisbjax.data.loader import Batch
from nisbjax.parallel import compiler, devices
from nisbjax.train import ema, loss_scale, preview
from nisbjax.train.optimizer import grouped, ungrouped, updates_done

Apply = Callable[[Any, Array], Any]  # (params, images) -> logits, or a pyramid of them
Objective = Callable[..., tuple[Float32[Array, ""], dict[str, Any]]]
Scalars = dict[str, Array]
Gradients = Callable[["TrainState", Batch], tuple[Any, dict[str, Any]]]


class TrainState(NamedTuple):
    """Everything that a step changes.

    All of it stands in the checkpoint but `failed`: a step was not finite, where that is
    no part of the recipe. Later steps then change nothing, so that the state stays the one
    from which the bad step is reproduced, however late the host looks.
    """

    step: Int32[Array, ""]
    params: Any
    ema: Any
    optimizer: Any
    scale: loss_scale.LossScale
    failed: Bool[Array, ""]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The functions and numbers that make a step.

    Attributes:
      apply: (params, images) -> logits at full resolution, or a pyramid of them.
      examples: what crops are made into.
      objective: (logits, targets, valid, weights or None) -> loss and named values.
      optimizer: its update is added to the parameters.
      schedule: the learning rate by updates done, for the record.
      seed: of every draw.
      ema_decay: see `ema.update`.
      ema_warmup: updates that copy.
      accumulate: micro-batches for one update; their gradients are averaged.
      scaled: whether overflowing steps change the loss scale (fp16).
    """

    apply: Apply
    examples: targets.ExampleRule
    objective: Objective
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    seed: int
    ema_decay: float
    ema_warmup: int
    accumulate: int = 1
    scaled: bool = False


def initial_state(
    params: Any, optimizer: optax.GradientTransformation, precision: str
) -> TrainState:
    """Step 0: the average starts as a copy of the weights.

    Args:
      params: float32 leaves, on the host or a device.
      optimizer: its state is that of the weights' decay groups, see `optimizer.grouped`.
      precision: see `loss_scale.initial_scale`.
    """
    first, copied = (jax.tree.map(jnp.array, params) for _ in range(2))
    scale = loss_scale.initial_scale(precision)
    state = optimizer.init(grouped(params))
    return TrainState(jnp.int32(0), first, copied, state, scale, jnp.bool_(False))


def make_train_step(
    recipe: Recipe, mesh: Mesh
) -> Callable[[TrainState, Batch], tuple[TrainState, Scalars]]:
    """Compiles (state, batch) -> (state, scalars); the state is donated.

    Args:
      recipe: what a step does.
      mesh: the batch is split over its `data` axis, the state replicated. The forward and
        backward passes run under `shard_map`, so that a device touches its own samples
        alone and gradients are summed once. A `space` axis splits the crops too, once they
        are augmented; `recipe.apply` must then be made for it.

    Returns:
      A jitted function. Its batch has `accumulate` times the samples of a micro-batch;
      scalars are `loss`, `grad_norm`, `loss_scale`, `lr`, `finite`, `failed` and those of
      the objective. A step whose gradients are not finite leaves weights, average and
      optimizer as they were; under fp16 the next one goes on at half the scale, until that
      is below 1: then, as at once without scaling, the run has `failed`.
    """
    gradients = _gradients(recipe, mesh)
    if recipe.accumulate > 1:
        gradients = _accumulated(gradients, recipe.accumulate, mesh)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Scalars]:
        grads, scalars = gradients(state, batch)
        divisor = state.scale.scale * recipe.accumulate
        grads = jax.tree.map(lambda g: g / divisor, grouped(grads))
        finite = loss_scale.all_finite(grads) & jnp.isfinite(scalars["loss"])
        failed = state.failed | ~finite
        if recipe.scaled:  # an overflow is gone long before the scale is down to 1
            failed = state.failed | (~finite & (state.scale.scale < 1))
        scalars |= {
            "grad_norm": optax.tree.norm(grads),
            "loss_scale": state.scale.scale,
            "lr": recipe.schedule(updates_done(state.optimizer)),
            "finite": finite,
            "failed": failed,
        }
        return _updated(state, recipe, grads, finite=finite, failed=failed), scalars

    whole, split = devices.replicated(mesh), devices.split_batch(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, split),
        out_shardings=(whole, whole),
        donate_argnums=0,
        compiler_options=compiler.network(),
    )


def _gradients(recipe: Recipe, mesh: Mesh) -> Gradients:
    """Of the scaled loss of one micro-batch, and the objective's scalars."""
    apply = per_shard(recipe.apply, mesh)

    def loss(params, batch, step, scale):
        made = targets.examples(
            batch,
            recipe.examples,
            seed=recipe.seed,
            step=step,
            training=True,
            mesh=mesh,
        )
        logits = apply(params, made.images)
        value, scalars = recipe.objective(
            logits, made.targets, made.valid, made.weights
        )
        return value * scale, {"loss": value, **scalars}

    def gradients(state, batch):
        gradient = jax.grad(loss, has_aux=True)
        return gradient(state.params, batch, state.step, state.scale.scale)

    return gradients


def _accumulated(gradients: Gradients, count: int, mesh: Mesh) -> Gradients:
    """The sum of the gradients of `count` micro-batches, and the means of their scalars."""

    def micro_batches(field):
        # Every device keeps its own samples: it holds a share of each micro-batch.
        shares = mesh.shape[devices.DATA], count, -1
        shared = field.reshape(*shares, *field.shape[1:])
        return shared.swapaxes(0, 1).reshape(count, -1, *field.shape[1:])

    def accumulated(state, batch):
        parts = jax.tree.map(micro_batches, batch)

        def add(total, part):
            grads, scalars = gradients(state, part)
            return jax.tree.map(jnp.add, total, grads), scalars

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        grads, scalars = jax.lax.scan(add, zeros, parts)
        return grads, jax.tree.map(lambda s: s.mean(axis=0), scalars)

    return accumulated


def _updated(
    state: TrainState,
    recipe: Recipe,
    grads: Any,
    *,
    finite: Bool[Array, ""],
    failed: Bool[Array, ""],
) -> TrainState:
    """The state after a step: weights, average and optimizer as they were if not finite."""
    before = grouped(state.params), grouped(state.ema), state.optimizer
    updates, optimizer = recipe.optimizer.update(grads, before[2], before[0])
    params = optax.apply_updates(before[0], updates)
    average = ema.update(
        before[1],
        params,
        state.step + 1,
        decay=recipe.ema_decay,
        warmup=recipe.ema_warmup,
    )
    params, average, optimizer = jax.tree.map(
        lambda new, old: jnp.where(finite & ~failed, new, old),
        (params, average, optimizer),
        before,
    )
    number, scale = state.step + 1, state.scale
    if recipe.scaled:
        scale = loss_scale.next_scale(scale, finite)
    number, scale = jax.tree.map(
        lambda new, old: jnp.where(failed, old, new),
        (number, scale),
        (state.step, state.scale),
    )
    params = ungrouped(params, state.params)
    average = ungrouped(average, state.ema)
    return TrainState(number, params, average, optimizer, scale, failed)


def make_validation_step(
    recipe: Recipe, mesh: Mesh
) -> Callable[[Any, Batch], tuple[Scalars, preview.Planes]]:
    """Compiles (params, batch) -> scalars of crops without augmentation, and a view.

    Samples that only pad the batch count nowhere. Scalars: those of the objective, `loss`,
    and `accuracy`, the share of known edges on the right side of logit 0. The view is of
    the batch's first crop.
    """
    whole, split = devices.replicated(mesh), devices.split_batch(mesh)
    apply = per_shard(recipe.apply, mesh)

    def step(params: Any, batch: Batch) -> tuple[Scalars, preview.Planes]:
        made = targets.examples(batch, recipe.examples, training=False, mesh=mesh)
        logits = apply(params, made.images)
        value, scalars = recipe.objective(
            logits, made.targets, made.valid, made.weights
        )
        finest = logits[0] if isinstance(logits, tuple) else logits
        accuracy = _accuracy(finest, made.targets, made.valid)
        view = preview.mid_planes(made, finest)
        return {"loss": value, **scalars, "accuracy": accuracy}, view

    return jax.jit(
        step,
        in_shardings=(whole, split),
        out_shardings=whole,
        compiler_options=compiler.network(),
    )


def per_shard(apply: Apply, mesh: Mesh) -> Apply:
    """The network of crops that are split over a mesh: each device has its own part."""
    crops = devices.split_crops(mesh)
    return jax.shard_map(
        apply,
        mesh=mesh,
        in_specs=(PartitionSpec(), crops),
        out_specs=crops,
        check_vma=False,
    )


def _accuracy(
    logits: Array, targets: Bool[Array, "..."], valid: Bool[Array, "..."]
) -> Float32[Array, ""]:
    right = ((logits > 0) == targets) & valid
    known = jnp.maximum(valid.sum(), 1)
    return right.sum().astype(jnp.float32) / known.astype(jnp.float32)
