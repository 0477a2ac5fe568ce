"""Crops to examples, inside the jitted step: all that lies between bytes and the loss.

The order is PyTC's: normalise, augment the whole crop, erode its labels, compute
affinities, then cut the patch out of the crop, so that its edges end inside the crop. Each
sample is made by the same program whatever the batch: an example is the same array on
any number of devices.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Bool, Float32, Int

from nisbjax.data import labels as label_fields
from nisbjax.data.affinities import affinity_targets, target_context
from nisbjax.data.augment import Augmentation, augment, sample_keys
from nisbjax.data.calibre import calibre_weights
from nisbjax.data.intensity import normalized
from nisbjax.data.loader import Batch
from nisbjax.offsets import OFFSETS_6
from nisbjax.typing import Triple


@dataclasses.dataclass(frozen=True)
class ExampleRule:
    """What examples are made of; hashable, so that it may be a static argument.

    Attributes:
      patch: that the network sees.
      offsets: of the affinity channels.
      stored_at: the end of an edge at which it stands, `source` or `destination`.
      erosion: radii of label erosion (x, y, z), see `labels.erosion_triple`.
      erosions: other radii, of samples whose number in `Batch.erosion` is 1, 2, ...
      long_erosion: of the labels that the long-range channels are made from; None for the
        same. A long edge between two thin processes says more than their surface.
      augmentation: of training crops.
      calibre_max: weight of true edges in the thinnest neurites; 1 for no weights.
    """

    patch: Triple
    offsets: tuple[Triple, ...] = OFFSETS_6
    stored_at: str = "source"
    erosion: Triple = (0, 0, 0)
    erosions: tuple[Triple, ...] = ()
    long_erosion: Triple | None = None
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    calibre_max: float = 1.0

    @property
    def crop(self) -> Triple:
        """Shape to read: the patch and its target context."""
        before, behind = target_context(self.offsets, stored_at=self.stored_at)
        x, y, z = (sum(n) for n in zip(before, self.patch, behind, strict=True))
        return x, y, z


class Examples(NamedTuple):
    """What the network and the loss take."""

    images: Float32[Array, "b x y z c"]
    labels: Int[Array, "b x y z"]  # after augmentation and erosion, of the short edges
    targets: Bool[Array, "b x y z o"]
    valid: Bool[Array, "b x y z o"]
    weights: Float32[Array, "b x y z o"] | None  # see `calibre`; None for none


class View(NamedTuple):
    """A crop on its way to an example, each part cut to the patch."""

    images: Float32[Any, "*b x y z c"]  # after augmentation
    labels: Int[Any, "*b x y z"]  # after augmentation
    eroded: Int[Any, "*b x y z"]  # as the short edges see them
    targets: Bool[Any, "*b x y z o"]
    valid: Bool[Any, "*b x y z o"]


def _targets(
    batch: Batch, labels: Int[Array, "b x y z"], rule: ExampleRule
) -> tuple[Int[Array, "b x y z"], Bool[Array, "b x y z o"], Bool[Array, "b x y z o"]]:
    """Labels as the short edges see them, and targets of all edges with their validity."""
    short = label_fields.erode(labels, rule.erosion)
    for number, radii in enumerate(rule.erosions, start=1):
        if batch.erosion is not None:
            own = (batch.erosion == number)[:, None, None, None]
            short = jnp.where(own, label_fields.erode(labels, radii), short)
    targets, valid = affinity_targets(short, rule.offsets, stored_at=rule.stored_at)
    if rule.long_erosion is None or {rule.long_erosion} == {
        rule.erosion,
        *rule.erosions,
    }:
        return short, targets, valid
    long = label_fields.erode(labels, rule.long_erosion)
    # Erosion touches no unlabeled voxel: what is known stays so.
    far, _ = affinity_targets(long, rule.offsets, stored_at=rule.stored_at)
    is_long = np.array([sum(map(abs, offset)) > 1 for offset in rule.offsets])
    return short, jnp.where(is_long, far, targets), valid


def examples(
    batch: Batch,
    rule: ExampleRule,
    *,
    seed: int | Array = 0,
    step: int | Array = 0,
    training: bool,
    mesh: Mesh | None = None,
) -> Examples:
    """Makes one batch of examples; to be called inside a jitted function.

    Args:
      batch: crops as the loader put them, of shape `rule.crop`.
      rule: static.
      seed: of the run.
      step: of training; with `seed` and the sample's index it determines every draw.
      training: False leaves the crops as they are (validation).
      mesh: of devices, where the batch is sharded over its axis `data`; every device then
        makes its own samples without communication.

    Returns:
      Patches; `valid` is False throughout for samples that only pad the batch.
    """

    def local(batch: Batch, seed: Array, step: Array) -> Examples:
        images, labels = _augmented(batch, rule, seed, step, training=training)
        labels, targets, valid = _targets(batch, labels, rule)
        valid = valid & batch.real[:, None, None, None, None]
        weights = None
        if rule.calibre_max != 1.0:
            weights = calibre_weights(labels, targets, largest=rule.calibre_max)
        made = Examples(images, labels, targets, valid, weights)
        return jax.tree.map(lambda field: field[:, *_patch(rule)], made)

    seed, step = jnp.asarray(seed, jnp.uint32), jnp.asarray(step, jnp.uint32)
    if mesh is None:
        return local(batch, seed, step)
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, everywhere, everywhere),
        out_specs=rows,
        check_vma=False,  # a cond's branches that differ in what varies are refused
    )(batch, seed, step)


def view(
    batch: Batch, rule: ExampleRule, *, seed: int | Array, step: int | Array
) -> View:
    """What `examples` makes of training crops, with the labels before their erosion.

    Args:
      batch, rule, seed, step: as `examples`.
    """
    seed, step = jnp.asarray(seed, jnp.uint32), jnp.asarray(step, jnp.uint32)
    images, labels = _augmented(batch, rule, seed, step, training=True)
    made = View(images, labels, *_targets(batch, labels, rule))
    return jax.tree.map(lambda field: field[:, *_patch(rule)], made)


def _augmented(
    batch: Batch, rule: ExampleRule, seed: Array, step: Array, *, training: bool
) -> tuple[Float32[Array, "b x y z c"], Int[Array, "b x y z"]]:
    images, labels = normalized(batch.images, batch.scales), batch.labels
    if not training or rule.augmentation.profile == "none":
        return images, labels
    # One sample after another: under vmap a cond would do both of its branches.
    return lax.map(
        lambda s: augment(s[0], s[1], s[2], rule.augmentation),
        (sample_keys(seed, step, batch.samples), images, labels),
    )


def _patch(rule: ExampleRule) -> tuple[slice, ...]:
    """Where the patch lies in a crop."""
    before, _ = target_context(rule.offsets, stored_at=rule.stored_at)
    return tuple(
        slice(low, low + size) for low, size in zip(before, rule.patch, strict=True)
    )
