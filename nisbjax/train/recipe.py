"""From the keys of a configuration to the functions of a step, and to the data it reads.

PyTC resolves its YAML sections inside the modules that use them; here this is the one place
of training that knows keys, everything below takes values.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array

from nisbjax.console import quantities
from nisbjax.data import description, labels, nisb, orientation, targets
from nisbjax.data.augment import Augmentation
from nisbjax.data.loader import Loader
from nisbjax.errors import InputError, require_choice
from nisbjax.models import build
from nisbjax.models.halo import SplitAxis
from nisbjax.models.kernels import on_device
from nisbjax.models.kernels.choice import Kernels, Recorder
from nisbjax.parallel import devices
from nisbjax.store.description import other_size
from nisbjax.train import losses, optimizer, sources, step
from nisbjax.train.sources import Source, describe_sources, sources_of
from nisbjax.typing import Config, Triple

Kept = str | os.PathLike
DESCRIBED = 8  # volumes of a split that the log describes
_IN_MEMORY_GB = 2.0  # volumes that fit are read once


def make_recipe(config: Config) -> step.Recipe:
    """The functions and numbers of a step, from the config's keys.

    Raises:
      InputError: a key has a value that is none of its choices.
    """
    require_choice("data.kind", config.data.kind, ("nisb", "files"))
    schedule = optimizer.learning_rate(
        config.schedule.kind,
        lr=config.optimizer.lr,
        steps=config.schedule.steps,
        min_lr=config.schedule.min_lr,
        warmup_steps=config.schedule.warmup_steps,
    )
    require_choice("train.precision", config.train.precision, build.COMPUTE)
    decay = {k: v for k, v in config.optimizer.to_dict().items() if k != "lr"}
    axes, far = config.data.erosion_axes, config.data.long_erosion
    radii = sources.erosions(config)
    examples = targets.ExampleRule(
        patch=tuple(config.data.patch),
        offsets=tuple(tuple(o) for o in config.data.offsets),
        stored_at=config.data.edge_stored_at,
        erosion=radii[0],
        erosions=tuple(radii[1:]),
        long_erosion=labels.erosion_triple(far, axes) if far else None,
        augmentation=Augmentation(**config.augment),
        calibre_max=config.loss.calibre_max,
    )
    if len(examples.offsets) != config.model.out_channels:
        raise InputError(
            f"data.offsets names {len(examples.offsets)} edges, model.out_channels is "
            f"{config.model.out_channels}; wanted the same number"
        )
    return step.Recipe(
        apply=_network(config),
        examples=examples,
        objective=_objective(config),
        optimizer=optimizer.adamw(schedule, **decay),
        schedule=schedule,
        seed=config.seed,
        ema_decay=config.ema.decay,
        ema_warmup=config.ema.warmup_steps,
        accumulate=config.train.accumulate,
        scaled=config.train.precision == "fp16",
    )


def make_recipe_on(mesh: Mesh, config: Config) -> step.Recipe:
    """`make_recipe`, its network for parts of crops where the mesh splits them.

    Raises:
      InputError: as `make_recipe`, or the patch cannot be split so.
    """
    recipe = make_recipe(config)
    on_device.require_device(config.model.kernels)
    count = devices.parts(mesh)
    if count == 1:
        return recipe
    build.require_parts(config.model.to_dict(), recipe.examples.patch[0], count)
    return dataclasses.replace(recipe, apply=_network(config, count))


def choose_kernels(
    mesh: Mesh, config: Config, batch: int, recorded: Mapping[str, Any] | None
) -> Kernels | None:
    """By which kernels the network of a step is computed, forward and backward.

    Args:
      mesh: devices.
      config: the whole configuration.
      batch: samples of a micro-batch on all of them.
      recorded: see `on_device.kernels_for`.

    Raises:
      InputError: there are none of those that `model.kernels` names.
    """

    def record(recorder: Recorder) -> None:
        record_uses(mesh, config, batch, recorder)

    return on_device.kernels_for(config.model.kernels, record, recorded)


def record_uses(mesh: Mesh, config: Config, batch: int, recorder: Recorder) -> None:
    """Notes what the network of a step computes, forward and backward; nothing is computed.

    Args:
      mesh: devices.
      config: the whole configuration.
      batch: samples of a micro-batch on all of them.
      recorder: that notes it.
    """
    params = build.abstract_params(config.model.to_dict())
    shape = (batch, *config.data.patch, config.model.in_channels)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    apply = step.per_shard(_network(config, devices.parts(mesh), recorder), mesh)

    def loss(params: Any, images: Any) -> Array:
        logits = jax.tree.leaves(apply(params, images))
        return jnp.stack([values.sum() for values in logits]).sum()

    jax.eval_shape(jax.grad(loss), params, images)
    jax.eval_shape(apply, params, images)  # of a validation


def require_patch(mesh: Mesh, config: Config, recipe: step.Recipe) -> None:
    """Refuses crops that the network does not take; it is traced, not computed.

    Args:
      mesh: devices.
      config: keys `model`.
      recipe: of `make_recipe_on`.

    Raises:
      InputError: a patch of another size than the network takes, or one that the mesh
        cannot share.
    """
    one_each = mesh.shape[devices.DATA]
    shape = (one_each, *recipe.examples.patch, config.model.in_channels)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = build.abstract_params(config.model.to_dict())
    jax.eval_shape(step.per_shard(recipe.apply, mesh), params, images)


def with_kernels(
    recipe: step.Recipe,
    mesh: Mesh,
    config: Config,
    kernels: Kernels | Recorder | None,
) -> step.Recipe:
    """`make_recipe_on`, its network computed by these kernels, or noting them."""
    if kernels is None:
        return recipe
    apply = _network(config, devices.parts(mesh), kernels)
    return dataclasses.replace(recipe, apply=apply)


def _network(
    config: Config, parts: int = 1, kernels: Kernels | Recorder | None = None
) -> step.Apply:
    return build.make_apply(
        config.model.to_dict(),
        build.COMPUTE[config.train.precision],
        remat=config.model.remat,
        space=SplitAxis(devices.SPACE, parts) if parts > 1 else None,
        kernels=kernels,
    )


def _objective(config: Config) -> step.Objective:
    keys = {k: v for k, v in config.loss.items() if k != "calibre_max"}
    loss = losses.make_loss(**keys)
    if not config.model.deep_supervision:
        return loss
    return lambda pyramid, made, valid, weights: losses.deep_supervision(
        pyramid, made, valid, loss, weights
    )


def open_training_data(config: Config, crop: Triple | None = None) -> None:
    """Opens what training would read, so that a wrong path ends before a folder is made.

    The log says what was read, and warns where labels seem to lie across their image, or
    are smaller than the crops.

    Args:
      config: the whole configuration.
      crop: shape that is read for a sample; None where that is not known.

    Raises:
      InputError: data are missing, or do not fit one another or the model.
    """
    for split in ("train", "val") if config.train.val_every else ("train",):
        every, found = sources_of(config, split), []
        for source in every:
            pairs, _ = open_source(config, split, source, crop)
            found.append(pairs)
        if every[0].name:
            for line in describe_sources(every, found):
                logging.info("%s: %s", split, line)


def open_source(
    config: Config, split: str, source: Source, crop: Triple | None
) -> tuple[list[nisb.Pair], list[str]]:
    """Opens the pairs of one source as training would read them.

    The log says what was read, and warns where labels seem to lie across their image, or
    are smaller than the crops.

    Args:
      config: keys `model`.
      split: `train` or `val`.
      source: of `sources_of`.
      crop: shape that training reads for a sample; None where that is not known.

    Returns:
      The pairs, and the warnings.

    Raises:
      InputError: data are missing, or do not fit one another or the model.
    """
    channels = config.model.in_channels
    pairs = [p.over_labels() for p in sources.open_source(source, split, channels)]
    for pair in pairs[:DESCRIBED]:
        for line in description.lines(pair, source.data.unlabeled):
            logging.info("%s: %s", split, line)
    # A box of labels that lie across their image is a box of other tissue.
    whole = sources.open_source(source, split, channels, box=False)[:DESCRIBED]
    seen = (orientation.warn(pair.over_labels()) for pair in whole)
    warnings = [said for said in seen if said]
    for pair in pairs:
        for volume in (pair.image, pair.labels):
            said = other_size(volume, source.data.voxel_size_nm)
            if said:
                logging.warning(said)
                warnings.append(said)
    if split == "train" and crop:
        warnings += _too_small(pairs, crop)
    if pairs[DESCRIBED:]:
        logging.info("%s: and %d volumes more", split, len(pairs[DESCRIBED:]))
    return pairs, warnings


def _too_small(pairs: Sequence[nisb.Pair], crop: Triple) -> list[str]:
    """What the log says of labels that are smaller than a crop."""
    found = []
    for pair in pairs:
        shape = pair.labels.spatial_shape
        if all(size >= side for size, side in zip(shape, crop, strict=True)):
            continue
        found.append(
            f"{pair.labels.source} has {quantities.shape(shape)} voxels (x y z), and training "
            f"reads crops of {quantities.shape(crop)} (data.patch and the reach of "
            "data.offsets): what is missing is not labeled, and beyond the image filled "
            "by reflection; choose a smaller data.patch"
        )
        logging.warning(found[-1])
    return found


def training_loader(
    config: Config, crop: Any, mesh: Mesh, batch: int, kept: Kept = ""
) -> Loader:
    """New crops at each step; `batch` samples for each of `train.accumulate` parts.

    Args:
      config: the whole configuration.
      crop: shape to read.
      mesh: devices.
      batch: samples of a micro-batch on all of them.
      kept: folder of the statistics that images are scaled by; "" for memory alone.
    """
    count = batch * config.train.accumulate
    return _loader(config, "train", crop, mesh, count, None, kept)


def validation_loader(
    config: Config, crop: Any, mesh: Mesh, batch: int, kept: Kept = ""
) -> Loader:
    """The fixed list of `train.val_crops` crops; arguments as of `training_loader`."""
    return _loader(config, "val", crop, mesh, batch, config.train.val_crops, kept)


def _loader(
    config: Config,
    split: str,
    crop: Any,
    mesh: Mesh,
    batch: int,
    count: int | None,
    kept: Kept,
) -> Loader:
    pairs, shares = sources.open_normalized(config, split, kept)
    return Loader(
        nisb.in_memory(pairs, _IN_MEMORY_GB),
        crop,
        seed=config.seed,
        global_batch=batch,
        count=count,
        sampling=config.data.sampling,
        shares=shares,
        relabel=config.data.relabel,
        sharding=devices.split_batch(mesh),
        threads=config.train.loader_threads,
        prefetch=config.train.prefetch,
    )
