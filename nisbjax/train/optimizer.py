"""AdamW with the reference's decay groups, its cosine schedule and its clipping.

torch's AdamW (decoupled decay, lr * wd * p; eps outside the square root) and optax's agree
term by term. PyTC decays everything but normalisation layers, biases included; BANIS decays
every parameter: `norm_weight_decay` = `weight_decay` gives that.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from nisbjax.errors import require_choice


def learning_rate(
    kind: str, *, lr: float, steps: int, min_lr: float = 0.0, warmup_steps: int = 0
) -> optax.Schedule:
    """Learning rate by optimizer step t.

    `cosine`: min_lr + (lr - min_lr) (1 + cos(pi t / steps)) / 2, after a linear warm-up from
    lr / warmup_steps where one is asked for (the cosine then spans what is left, unlike
    PyTC's `WarmupCosineLR`, whose cosine spans all steps); `constant`: lr.

    Raises:
      InputError: another kind.
    """
    require_choice("schedule.kind", kind, ("cosine", "constant"))
    if kind == "constant":
        main = optax.constant_schedule(lr)
    else:
        left = max(steps - warmup_steps, 1)
        alpha = min_lr / lr if lr else 0.0
        main = optax.cosine_decay_schedule(lr, left, alpha=alpha)
    if not warmup_steps:
        return main
    ramp = optax.linear_schedule(lr / warmup_steps, lr, warmup_steps)
    return optax.join_schedules([ramp, main], [warmup_steps])


def adamw(
    schedule: optax.Schedule,
    *,
    weight_decay: float,
    norm_weight_decay: float,
    b1: float,
    b2: float,
    eps: float,
    clip: float,
) -> optax.GradientTransformation:
    """AdamW behind a clip of the global L2 norm (0 = none).

    Args:
      schedule: learning rate by step.
      weight_decay: of weights and biases.
      norm_weight_decay: of the scales and biases of normalisation layers.
    """

    def norms(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: is_norm(path), tree)

    def others(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: not is_norm(path), tree)

    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.masked(optax.add_decayed_weights(weight_decay), others),
        optax.masked(optax.add_decayed_weights(norm_weight_decay), norms),
        optax.scale_by_learning_rate(schedule),
    )


def updates_done(state: Any) -> Int[Array, ""]:
    """Updates that the schedule has counted, from the state of `adamw`; 0 without one."""
    counts = [part.count for part in _parts(state) if _is_schedule(part)]
    return counts[0] if counts else jnp.int32(0)


def restarted(state: Any, fresh: Any, *, moments: bool, schedule: bool) -> Any:
    """The state of `adamw` with some of it as at the first step.

    Args:
      state: so far.
      fresh: of the same optimizer, at its first step.
      moments: take both moments and their bias correction from `fresh`.
      schedule: start the learning rate's schedule again.
    """

    def choose(old: Any, new: Any) -> Any:
        return new if (schedule if _is_schedule(old) else moments) else old

    return jax.tree.map(choose, state, fresh, is_leaf=_is_schedule)


def _parts(state: Any) -> list[Any]:
    return jax.tree.leaves(state, is_leaf=_is_schedule)


def _is_schedule(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)


def grouped(tree: Any) -> dict[str, Array]:
    """All leaves as one vector for each decay group, `norm` and `other`.

    An update over two vectors compiles to a few loops; over the 157 leaves of MedNeXt-S it
    is most of the training step's program.
    """
    groups: dict[str, list[Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        group = groups.setdefault("norm" if is_norm(path) else "other", [])
        group.append(jnp.ravel(leaf))
    return {name: jnp.concatenate(leaves) for name, leaves in groups.items()}


def order(tree: Any) -> dict[str, list[str]]:
    """What `grouped` puts one after another: a line for each leaf, with its shape.

    The moments of a checkpoint are such vectors. The lines go with them, since leaves that
    have been renamed and stand in another order would take one another's moments.
    """
    lines: dict[str, list[str]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = "x".join(map(str, jnp.shape(leaf)))
        lines.setdefault("norm" if is_norm(path) else "other", []).append(
            f"{name} {shape}"
        )
    return lines


def ungrouped(groups: dict[str, Array], like: Any) -> Any:
    """The tree that `grouped` made the vectors of, with the shapes of `like`."""
    starts = dict.fromkeys(groups, 0)

    def cut(path: tuple[Any, ...], leaf: Any) -> Array:
        name = "norm" if is_norm(path) else "other"
        start, starts[name] = starts[name], starts[name] + leaf.size
        return groups[name][start : starts[name]].reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(cut, like)


def is_norm(path: tuple[Any, ...]) -> bool:
    """Whether a parameter's path runs through a layer named `norm`."""
    return any(getattr(key, "key", None) == "norm" for key in path)
