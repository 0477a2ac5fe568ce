"""Losses on affinity logits, always in float32.

`per_channel_bce` is PyTC's PerChannelBCEWithLogitsLoss: one class-balanced binary cross
entropy per affinity channel, summed over channels. `pooled_bce` is BANIS's plain mean over
all known edges. PyTC counts classes over each rank's micro-batch, so its loss changes with
the number of devices; here they are counted over fixed groups of consecutive samples.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Shaped

from nisbjax.errors import InputError
from nisbjax.train.worst_neighbours import worst_of_class

Logits = Float[Array, "b x y z c"]
Targets = Shaped[Array, "b x y z c"]  # bool, or float after rescaling
Valid = Bool[Array, "b x y z c"]
Terms = dict[str, Array]
Loss = Callable[..., tuple[Float32[Array, ""], Terms]]  # see `make_loss`


def per_channel_bce(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    weights: Float32[Array, "b x y z c"] | None = None,
    *,
    max_pos_weight: float = 10.0,
    balance_group: int = 2,
    logit_clamp: float = 20.0,
) -> tuple[Float32[Array, ""], Terms]:
    """Class-balanced cross entropy of each channel, summed over channels.

    Within one group and channel, positives weigh min(negatives / positives,
    max_pos_weight) (1 without positives; below 1 where positives prevail), and the sum is
    divided by the number of known edges. Groups are averaged.

    Args:
      logits: of any float type; taken to float32.
      targets: 1 = the edge joins two voxels of one instance.
      valid: edges that are known; no others count.
      weights: of each edge, on top of the class weights.
      max_pos_weight: bound from above.
      balance_group: consecutive samples over which classes are counted; 0, or a number
        beyond the batch, is the whole batch.
      logit_clamp: logits are clamped to -+ this first; 0 leaves them.

    Returns:
      (loss, terms): `terms` has the `per_channel` losses [c] and the `pos_weight` [c],
      means over the groups. A channel without a known edge contributes 0, and a group
      without any is left out of the means.

    Raises:
      InputError: the batch is not a multiple of the group.
    """
    group = _group(logits.shape[0], balance_group)
    # [g n x y z c]: groups, then their samples. No voxel axis is merged with another, so
    # that an array sharded along one of them stays so.
    shape = (logits.shape[0] // group, group, *logits.shape[1:])
    x = _clamp(logits, logit_clamp).reshape(shape)
    m = valid.reshape(shape)
    t = jnp.where(m, targets.reshape(shape).astype(jnp.float32), 0.0)
    known = _count(m)
    positives = _count((t > 0) & m)
    ratio = (known - positives) / jnp.maximum(positives, 1.0)
    pos_weight = jnp.where(positives > 0, jnp.minimum(ratio, max_pos_weight), 1.0)
    terms = _cross_entropy(x, t, pos_weight[:, None, None, None, None, :])
    terms = terms if weights is None else terms * weights.reshape(shape)
    sums = jnp.where(m, terms, 0.0).sum((1, 2, 3, 4))
    channels = sums / jnp.maximum(known, 1.0)
    counted = (known.sum(1) > 0).astype(jnp.float32)
    share = (counted / jnp.maximum(counted.sum(), 1.0))[:, None]
    per_channel = (channels * share).sum(0)
    return per_channel.sum(), {
        "per_channel": per_channel,
        "pos_weight": (pos_weight * share).sum(0),
    }


def pooled_bce(
    logits: Logits,
    targets: Targets,
    valid: Valid,
    weights: Float32[Array, "b x y z c"] | None = None,
    *,
    logit_clamp: float = 0.0,
) -> tuple[Float32[Array, ""], Terms]:
    """Mean cross entropy over all known edges of all channels, without class weights.

    Args and returns are those of `per_channel_bce`; `per_channel` holds each channel's own
    mean, `pos_weight` ones.
    """
    m = valid
    x = _clamp(logits, logit_clamp)
    t = jnp.where(m, targets.astype(jnp.float32), 0.0)
    terms = _cross_entropy(x, t, jnp.ones((1,) * 5))
    terms = terms if weights is None else terms * weights
    sums = jnp.where(m, terms, 0.0).sum((0, 1, 2, 3))
    known = m.sum((0, 1, 2, 3), dtype=jnp.float32)
    return sums.sum() / jnp.maximum(known.sum(), 1.0), {
        "per_channel": sums / jnp.maximum(known, 1.0),
        "pos_weight": jnp.ones_like(known),
    }


def make_loss(
    kind: str,
    *,
    max_pos_weight: float = 10.0,
    balance_group: int = 2,
    logit_clamp: float = 20.0,
    scnp: int = 1,
) -> Callable[..., tuple[Float32[Array, ""], Terms]]:
    """The loss of that name, `(logits, targets, valid, weights=None) -> (loss, terms)`.

    Args:
      kind: `per_channel_bce` or `bce`.
      max_pos_weight, balance_group, logit_clamp: as `per_channel_bce`.
      scnp: voxels across the neighbourhood whose worst logit counts for each edge
        (`worst_neighbours`), odd; 1 for the edge alone.

    Raises:
      InputError: another name.
    """
    losses = {
        "per_channel_bce": jax.tree_util.Partial(
            per_channel_bce,
            max_pos_weight=max_pos_weight,
            balance_group=balance_group,
            logit_clamp=logit_clamp,
        ),
        "bce": jax.tree_util.Partial(pooled_bce, logit_clamp=logit_clamp),
    }
    if kind not in losses:
        raise InputError(f"loss.kind is {kind!r}; wanted one of {', '.join(losses)}")
    loss = losses[kind]
    return loss if scnp == 1 else jax.tree_util.Partial(_of_worst, loss, scnp)


def _of_worst(
    loss: Loss,
    window: int,
    logits: Logits,
    targets: Targets,
    valid: Valid,
    weights: Float32[Array, "b x y z c"] | None = None,
) -> tuple[Float32[Array, ""], Terms]:
    logits = worst_of_class(logits, targets, valid, window)
    return loss(logits, targets, valid, weights)


def deep_supervision(
    pyramid: Sequence[Float[Array, "b _ _ _ c"]],
    targets: Targets,
    valid: Valid,
    loss: Loss,
    weights: Float32[Array, "b x y z c"] | None = None,
) -> tuple[Float32[Array, ""], Terms]:
    """Sum of the losses of every scale, each half the weight of the finer one.

    Args:
      pyramid: logits, full resolution first.
      targets: at full resolution; coarser scales see them trilinearly resized, as PyTC.
      valid: likewise; a coarse voxel counts where all that it covers is known.
      loss: of one scale.
      weights: of each edge at full resolution; coarser scales are not weighted.

    Returns:
      The weighted sum, and the terms of full resolution.
    """
    total, terms = loss(pyramid[0], targets, valid, weights)
    for level, logits in enumerate(pyramid[1:], start=1):
        _, x, y, z, _ = logits.shape
        coarse = at_scale(targets, valid, (x, y, z))
        total = total + 0.5**level * loss(logits, *coarse)[0]
    return total, terms


def at_scale(
    targets: Targets, valid: Valid, shape: tuple[int, int, int]
) -> tuple[Float32[Array, "b i j k c"], Bool[Array, "b i j k c"]]:
    """Targets and their validity on a coarser grid whose sides divide the finer ones."""
    batch, *fine, channels = targets.shape
    size = (batch, *shape, channels)
    # A known edge must not take its target from beyond the known.
    soft = jax.image.resize(
        jnp.where(valid, targets.astype(jnp.float32), 0.0),
        size,
        method="linear",
        antialias=False,
    )
    blocks = [n for f, s in zip(fine, shape, strict=True) for n in (s, f // s)]
    known = valid.reshape(batch, *blocks, channels).all((2, 4, 6))
    return jnp.clip(soft, -1.0, 1.0), known


def _group(batch: int, balance_group: int) -> int:
    group = balance_group if 0 < balance_group < batch else batch
    if batch % group:
        raise InputError(
            f"a batch of {batch} is not a multiple of loss.balance_group = {group}; "
            "change either"
        )
    return group


def _clamp(logits: Array, bound: float) -> Array:
    logits = logits.astype(jnp.float32)
    return jnp.clip(logits, -bound, bound) if bound > 0 else logits


def _count(flags: Bool[Array, "g n x y z c"]) -> Float32[Array, "g c"]:
    return flags.sum((1, 2, 3, 4), dtype=jnp.int32).astype(jnp.float32)


def _cross_entropy(x: Array, t: Array, pos_weight: Array) -> Array:
    # log_sigmoid is exact where log(sigmoid(x)) underflows.
    return -(pos_weight * t * jax.nn.log_sigmoid(x) + (1 - t) * jax.nn.log_sigmoid(-x))
