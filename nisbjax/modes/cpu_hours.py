"""Refuses to train or predict for days on CPUs, where a GPU was meant and none is found.

By an estimate from the network's products, so that small things run anywhere without a word.
BANIS and PyTC begin, and say nothing.
"""

import math
import os

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer.windows import Grid
from nisbjax.keys.checks import optional
from nisbjax.store.volume import open_image
from nisbjax.typing import Config

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
    window = tuple(section.window)
    count = windows(config, image)
    flop = count * flips(config) * _forward_flop(config, window)
    what = f"{count} windows of {_by(window)} voxels"
    _require(
        flop,
        section.cpu_hours,
        f"predicting by MedNeXt-{config.model.size}, {what}",
        "predict",
    )


def windows(config: Config, image: str | os.PathLike) -> int:
    """Windows that a prediction computes, each in every flip.

    Of a region those of the whole image's grid that reach into it.

    Args:
      config: keys `predict`.
      image: its path.

    Raises:
      InputError: the image cannot be read.
    """
    section = config.predict
    roi, whole = optional(section.roi), open_image(image).spatial_shape
    x, y, z = section.window
    grid = Grid(whole, (x, y, z), section.overlap, section.edge_windows)
    region = Box.parse(roi) if roi else Box.whole(whole)
    return math.prod(len(starts) for starts in grid.reaching(region))


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
