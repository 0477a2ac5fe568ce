"""Refuses to train or predict for days on CPUs, where a GPU was meant and none is found.

By an estimate from the network's products, so that small things run anywhere without a word.
BANIS and PyTC begin, and say nothing.
"""

import math
import os

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.keys.checks import optional
from nisbjax.store.volume import open_image
from nisbjax.typing import Config, Triple

# Of a training step with blocks computed again (docs/performance.md); small networks, which
# wait for memory, do a third of it.
_FLOP_PER_CORE_SECOND = 40e9


def require_training(config: Config, done: int) -> None:
    """Refuses a training without a GPU of more than `train.cpu_hours`.

    Args:
      config: keys `train`, `model`, `data.patch`.
      done: steps that are trained already.

    Raises:
      InputError: saying how long it would take.
    """
    section = config.train
    crops = section.accumulate * (section.global_batch or section.batch_per_device)
    # Forward, twice as much backward, and again where blocks are computed again whole.
    passes = 3 if config.model.remat in ("none", "expansion", False) else 4
    patch = tuple(config.data.patch)
    steps = max(0, section.steps - done)
    flop = steps * crops * passes * _forward_flop(config, patch)
    what = f"{steps} steps of {crops} crops of {_by(patch)} voxels"
    _require(
        flop,
        section.cpu_hours,
        f"training MedNeXt-{config.model.size}, {what}",
        "train",
    )


def require_prediction(config: Config, image: str | os.PathLike) -> None:
    """Refuses a prediction without a GPU of more than `predict.cpu_hours`.

    Args:
      config: keys `predict`, `model`.
      image: its path.

    Raises:
      InputError: saying how long it would take, or the image cannot be read.
    """
    section = config.predict
    roi = optional(section.roi)
    shape = Box.parse(roi).shape if roi else open_image(image).spatial_shape
    window = tuple(section.window)
    count = windows(config, shape)
    flop = count * flips(config) * _forward_flop(config, window)
    what = f"{count} windows of {_by(window)} voxels"
    _require(
        flop,
        section.cpu_hours,
        f"predicting by MedNeXt-{config.model.size}, {what}",
        "predict",
    )


def windows(config: Config, shape: Triple) -> int:
    """Windows that a prediction computes, each in every flip.

    Args:
      config: keys `predict`.
      shape: of the volume.
    """
    section = config.predict
    stride = [max(1, int(w * (1 - section.overlap))) for w in section.window]
    return math.prod(
        1 + math.ceil(max(0, size - w) / s)
        for size, w, s in zip(shape, section.window, stride, strict=True)
    )


def flips(config: Config) -> int:
    """Passes of each window, by `predict.tta`."""
    return 8 if config.predict.tta == "flips" else 1


def _forward_flop(config: Config, shape: tuple[int, ...]) -> float:
    from nisbjax.models import cost  # loads JAX

    x, y, z = shape
    return cost.forward_flop(config.model.to_dict(), (x, y, z))


def _require(flop: float, most: float, what: str, section: str) -> None:
    import jax

    if jax.default_backend() != "cpu":
        return
    cores = len(os.sched_getaffinity(0)) * jax.process_count()
    hours = flop / _FLOP_PER_CORE_SECOND / cores / 3600
    if hours > most:
        raise InputError(
            f"{what}, takes about {hours:,.0f} hours on {cores} CPU cores, and JAX finds no "
            f"GPU here; run it on one (pip install 'nisbjax[cuda]'), make it smaller, or ask "
            f"for it with --config.{section}.cpu_hours={math.ceil(hours) * 2}"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
