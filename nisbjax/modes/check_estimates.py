"""Time, memory and disk of the stages of a configuration, and whether the disk has room.

What is measured is measured once and small: a forward pass of the network, a read of the
image.
"""

import math
import os
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax import estimates
from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint
from nisbjax.geometry import Box
from nisbjax.keys.checks import optional
from nisbjax.modes import cpu_hours
from nisbjax.modes.findings import Findings
from nisbjax.modes.volumes import split_of, within_box
from nisbjax.store.volume import Volume, open_image
from nisbjax.typing import Config, Triple

_SECONDS = 5.0  # that a forward pass may take, by the figure below
_FLOP_PER_SECOND = 40e9  # of a core, see `cpu_hours`
_SMALLEST = 32  # voxels along an axis of the image that is timed
_READ = 1 << 26  # bytes of the image that are read to time it
_VALUE_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}


def check(
    config: Config,
    run_dir: Run,
    start: pathlib.Path | None,
    network: Any,
    readable: Sequence[str],
    found: Findings,
) -> str:
    """The table of estimates; notes where the disk has too little room.

    Args:
      config: the whole of it.
      run_dir: where training and testing write.
      start: the checkpoint that training goes on with; None for none.
      network: that predicts.
      readable: splits whose volumes can be read.
      found: takes what is wrong.
    """
    rows = []
    timed = _timed(config, network)
    if "train" in readable:
        rows.append(_training(config, start, timed))
    if "val" in readable:
        rows.append(_study(config, timed))
    if "test" in readable:
        rows += _testing(config, timed)
    _require_room(run_dir.path, rows, found)
    return estimates.table(rows)


def _timed(config: Config, network: Any) -> estimates.Network:
    """The network with a forward pass of the window, or of a part of it on a slow device."""
    import jax

    from nisbjax.infer.speed import forward_seconds

    x, y, z = config.predict.window
    shape: Triple = (x, y, z)
    on_gpu = jax.default_backend() != "cpu"
    if not on_gpu:
        speed = _FLOP_PER_SECOND * len(os.sched_getaffinity(0))
        while _flop(config, shape) > _SECONDS * speed and max(shape) > _SMALLEST:
            x, y, z = (size // 2 if size > _SMALLEST else size for size in shape)
            shape = x, y, z
    logging.info("timing a forward pass of %d x %d x %d voxels", *shape)
    return estimates.Network(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(network.params)),
        channels=config.model.channels,
        parallel=jax.device_count() if on_gpu else 1,
        on_gpu=on_gpu,
        timed_shape=shape,
        timed_seconds=forward_seconds(network, shape),
        timed_flop=_flop(config, shape),
    )


def _flop(config: Config, shape: Triple) -> float:
    from nisbjax.models import cost

    return cost.forward_flop(config.model.to_dict(), shape)


def _training(
    config: Config, start: pathlib.Path | None, timed: estimates.Network
) -> estimates.Estimate:
    import jax

    from nisbjax.models.recomputation import recomputation

    section = config.train
    done = checkpoint.step_of(start) if start else 0
    batch = section.global_batch or section.batch_per_device * jax.device_count()
    x, y, z = config.data.patch
    every = section.ckpt_every
    # The newest, and the one that is being written; those that are kept.
    kept = 2 + (section.ckpt_best if section.val_every else 0)
    return estimates.training(
        timed,
        steps=max(0, section.steps - done),
        crops=batch * section.accumulate,
        patch=(x, y, z),
        flop=_flop(config, (x, y, z)),
        recomputed=recomputation(config.model.remat),
        value_bytes=_VALUE_BYTES[section.precision],
        checkpoints=kept + (section.steps // every if every else 0),
    )


def _prediction(
    config: Config, image: str, timed: estimates.Network
) -> estimates.Estimate:
    from nisbjax.infer.compute_dtype import settled

    section = config.predict
    word = settled(section.precision, section.activation, section.scale)
    x, y, z = section.window
    affinities = len(section.channels) * math.prod(_shape(config, image))
    return estimates.prediction(
        timed,
        windows=cpu_hours.windows(config, image) * cpu_hours.flips(config),
        window=(x, y, z),
        flop=_flop(config, (x, y, z)),
        batch=section.batch_per_device,
        memory_gb=section.memory_gb,
        value_bytes=_VALUE_BYTES[word],
        affinity_bytes=affinities * np.dtype(section.dtype).itemsize,
        copies=2 if section.format == "h5" else 1,
    )


def _study(config: Config, timed: estimates.Network) -> estimates.Estimate:
    from nisbjax.tune import stage

    config = within_box(config, "val")
    image = split_of(config, "val").image
    space = stage.check(config.tune, config.decode)
    return estimates.study(
        method=config.decode.method,
        voxels=math.prod(_shape(config, image)),
        cores=_cores(config),
        trials=len(space.points) or space.trials,
        predicted=_prediction(config, image, timed),
    )


def _testing(config: Config, timed: estimates.Network) -> list[estimates.Estimate]:
    config = within_box(config, "test")
    path = split_of(config, "test").image
    image, shape = open_image(path), _shape(config, path)
    voxels, rate = math.prod(shape), _bytes_per_second(image)
    rows = [_prediction(config, path, timed)]
    if config.decode.affinity_mask == "auto":
        size = voxels * image.dtype.itemsize * image.shape[-1]
        rows.append(estimates.mask(image_bytes=size, bytes_per_second=rate))
    decoded = estimates.decoding(
        method=config.decode.method,
        voxels=voxels,
        cores=_cores(config),
        memory_gb=config.decode.memory_gb,
    )
    scored = estimates.evaluation(label_bytes=4 * voxels, bytes_per_second=rate)
    return [*rows, decoded, scored]


def _shape(config: Config, image: str) -> Triple:
    """Of what is predicted of an image."""
    roi = optional(config.predict.roi)
    return Box.parse(roi).shape if roi else open_image(image).spatial_shape


def _cores(config: Config) -> int:
    """That decode boxes; of a method that holds its volume, one."""
    from nisbjax.decode.methods import method_of

    if not method_of(config.decode).streamed:
        return 1
    return config.cluster.workers or len(os.sched_getaffinity(0))


def _bytes_per_second(image: Volume) -> float:
    """How fast an image is read, by a part in its middle."""
    shape, one = image.spatial_shape, image.dtype.itemsize * image.shape[-1]
    sides = list(shape)
    while math.prod(sides) * one > _READ:
        longest = int(np.argmax(sides))
        sides[longest] = -(-sides[longest] // 2)
    start = [(size - side) // 2 for size, side in zip(shape, sides, strict=True)]
    x, y, z = (s + side for s, side in zip(start, sides, strict=True))
    started = time.perf_counter()
    image.read(Box((start[0], start[1], start[2]), (x, y, z)))
    return math.prod(sides) * one / (time.perf_counter() - started)


def _require_room(
    folder: pathlib.Path, rows: Sequence[estimates.Estimate], found: Findings
) -> None:
    """Notes a disk that has less room than the stages will take."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    least, most = (sum(row.disk_gb[i] for row in rows) for i in (0, 1))
    said = (
        f"{folder} has {free:.3g} GB free, and the stages take {least:.3g} to {most:.3g} GB "
        "there; free space, or name another place with --workdir=DIR"
    )
    if free < least:
        found.refuse(said)
    elif free < most:
        found.warn(said)
