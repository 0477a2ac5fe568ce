"""What the stages of a run will take: time, memory, disk, by arithmetic and a few figures.

Figures that were not measured here are of this project's pages, and say so. nnU-Net plans a
network by its memory and says nothing of time; PyTC and BANIS say nothing at all.
"""

import dataclasses
import math
import textwrap
from collections.abc import Sequence

from nisbjax.console import quantities
from nisbjax.typing import Triple

# CPU-seconds a megavoxel, from affinities to labels, zarr to zarr (docs/decoding.md).
DECODING = {
    "affinity_cc": 0.05,
    "chain": 0.6,
    "chain3": 0.2,
    "grow": 0.15,
    "mutex": 0.3,
}
_TABLES, _TRIAL = 1.7, 0.08  # CPU-seconds a megavoxel of a study of the chain (there)
_SWEEP = 2.0  # decodes that all thresholds of plain components take (docs/scaling.md)
# Arrays of the first level, as large as a crop times `model.channels`, which a training step
# holds at its peak, and a forward pass: own memory of L in fp32 (docs/performance.md).
_STEP_ARRAYS = {"block": 33, "expansion": 45, "none": 57}
_FORWARD_ARRAYS = 5
# What a crop of a training step takes, augmentation and all, in forward passes: on CPUs 4.9 to
# 7.3 by docs/performance.md, on a GPU 3.4 to 4.6 by docs/scaling.md.
_STEP_PASSES = {"block": (7.0, 4.5), "expansion": (6.5, 4.0), "none": (6.0, 3.5)}
_PROCESS_GB = 0.6  # libraries and what compiling leaves behind (there)
# Of what is stored: bytes on disk over bytes of the array, from well to badly compressed.
_AFFINITIES = (0.4, 0.9)  # .66 of the demo's (docs/scaling.md)
_LABELS = (0.02, 0.2)  # .03 of the demo's
_SCRATCH_BYTES = 0.5  # a voxel, while boxes are decoded (there)
_STATES = 4  # weights, their average, two moments


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One stage.

    Attributes:
      stage: its name.
      seconds: None where there is no figure.
      memory_gb: of the host, or of the device for `train`.
      disk_gb: from and to.
      how: where the figures are from.
    """

    stage: str
    seconds: float | None
    memory_gb: float
    disk_gb: tuple[float, float]
    how: str


@dataclasses.dataclass(frozen=True)
class Network:
    """A network on the devices of this machine, and a forward pass of it that was timed.

    Attributes:
      parameters: that it has.
      channels: of its first level.
      parallel: devices that share crops and windows.
      on_gpu: whether they are GPUs.
      timed_shape: of the image of the pass.
      timed_seconds: that it took.
      timed_flop: that it has, by `cost.forward_flop`.
    """

    parameters: int
    channels: int
    parallel: int
    on_gpu: bool
    timed_shape: Triple
    timed_seconds: float
    timed_flop: float

    def seconds(self, flop: float) -> float:
        """Of a forward pass of so many operations."""
        return self.timed_seconds * flop / self.timed_flop

    def arrays_gb(
        self, count: int, crops: int, shape: Triple, value_bytes: int
    ) -> float:
        """Of so many arrays of the first level, for each of the crops."""
        voxels = math.prod(shape) * self.channels
        return count * crops * voxels * value_bytes / 1e9

    def __str__(self) -> str:
        return (
            f"one forward pass of {quantities.shape(self.timed_shape)} took "
            f"{self.timed_seconds:.2g} s here"
        )


def training(
    network: Network,
    *,
    steps: int,
    crops: int,
    patch: Triple,
    flop: float,
    recomputed: str,
    value_bytes: int,
    checkpoints: int,
) -> Estimate:
    """A training.

    Args:
      network: that is trained.
      steps: that are left.
      crops: of a step, on all devices.
      patch: that the network sees.
      flop: of a forward pass of one crop.
      recomputed: word of `model.remat`.
      value_bytes: of a number in its arrays.
      checkpoints: that are kept.
    """
    passes = _STEP_PASSES[recomputed][network.on_gpu]
    own = -(-crops // network.parallel)
    seconds = steps * own * passes * network.seconds(flop)
    arrays = network.arrays_gb(_STEP_ARRAYS[recomputed], own, patch, value_bytes)
    # In float32: the states, and the gradient.
    state = 4 * network.parameters * (_STATES + 1) / 1e9
    stored = 4 * network.parameters * _STATES * checkpoints / 1e9
    return Estimate(
        "train",
        seconds,
        arrays + state + _PROCESS_GB,
        (stored, stored),
        f"{steps:,} steps of {crops} crops, each as long as {passes:g} forward passes "
        f"(docs/performance.md), {network}; memory: there; {network.parameters / 1e6:.2f} M parameters, "
        f"{checkpoints} checkpoints",
    )


def prediction(
    network: Network,
    *,
    windows: int,
    window: Triple,
    flop: float,
    batch: int,
    memory_gb: float,
    value_bytes: int,
    affinity_bytes: int,
    copies: int,
) -> Estimate:
    """A prediction.

    Args:
      network: that predicts.
      windows: that are computed, flips among them.
      window: its shape.
      flop: of a forward pass of one window.
      batch: of a device.
      memory_gb: `predict.memory_gb`.
      value_bytes: of a number in the network's arrays.
      affinity_bytes: of all affinities, raw.
      copies: files that hold them.
    """
    arrays = network.arrays_gb(_FORWARD_ARRAYS, batch, window, value_bytes)
    low, high = (copies * share * affinity_bytes / 1e9 for share in _AFFINITIES)
    return Estimate(
        "predict",
        windows * network.seconds(flop) / network.parallel,
        memory_gb + arrays + _PROCESS_GB,
        (low, high),
        f"{windows:,} windows, {network}; memory at most: predict.memory_gb and the "
        "network's arrays; disk: docs/scaling.md",
    )


def mask(*, image_bytes: int, bytes_per_second: float) -> Estimate:
    """QC and the mask, where prediction has gathered what QC looks at."""
    return Estimate(
        "qc, mask",
        image_bytes / bytes_per_second,
        0.3,
        (0.0, 0.05 * image_bytes / 1e9),
        f"reads the image once, {_gigabytes(bytes_per_second / 1e9)} a second here",
    )


def decoding(*, method: str, voxels: int, cores: int, memory_gb: float) -> Estimate:
    """A decode.

    Args:
      method: `decode.method`.
      voxels: of the volume.
      cores: that decode boxes side by side.
      memory_gb: `decode.memory_gb`.
    """
    seconds = DECODING[method] * voxels / 1e6 / cores
    labels = 4 * voxels / 1e9
    low, high = (share * labels for share in _LABELS)
    return Estimate(
        "decode",
        seconds,
        memory_gb,
        (low, high + _SCRATCH_BYTES * voxels / 1e9),
        f"{DECODING[method]:g} CPU-seconds a megavoxel (docs/decoding.md) on {cores} cores; "
        "memory: decode.memory_gb; disk: with its scratch folder",
    )


def evaluation(*, label_bytes: int, bytes_per_second: float) -> Estimate:
    """Scores: the segmentation and the labels are read."""
    return Estimate(
        "evaluate",
        2 * label_bytes / bytes_per_second,
        1.0,
        (0.0, 0.0),
        "reads segmentation and labels at the rate of the image; memory: docs/scaling.md",
    )


def study(
    *, method: str, voxels: int, cores: int, trials: int, predicted: Estimate
) -> Estimate:
    """A study of the decoder, the prediction of the validation volume before it.

    Args:
      method, voxels, cores: as `decoding`, of the validation volume.
      trials: of the study.
      predicted: `prediction` of that volume.
    """
    a_megavoxel = DECODING[method] * trials
    how = f"{trials} decodes"
    if method == "affinity_cc":
        a_megavoxel, how = DECODING[method] * _SWEEP, f"{_SWEEP:g} decodes"
    elif method in ("chain", "chain3"):
        a_megavoxel = _TABLES + _TRIAL * trials
        how = f"tables and {trials} trials, {a_megavoxel:.2g} CPU-seconds a megavoxel"
    seconds = a_megavoxel * voxels / 1e6 / cores
    if predicted.seconds is not None:
        seconds += predicted.seconds
    low, high = predicted.disk_gb
    return Estimate(
        "tune",
        seconds,
        predicted.memory_gb,
        (low, high + 20e-9 * voxels),
        f"predicts the validation volume, then {how} (docs/decoding.md)",
    )


def table(estimates: Sequence[Estimate]) -> str:
    """Stages, a line each, and below them how each line was got."""
    rows = [("stage", "time, about", "memory", "disk")]
    for each in estimates:
        known = each.seconds is not None
        time = quantities.duration(each.seconds or 0.0) if known else "unknown"
        disk = " to ".join(dict.fromkeys(map(_gigabytes, each.disk_gb)))
        rows.append((each.stage, time, _gigabytes(each.memory_gb), disk))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    notes = [_wrapped(f"{e.stage}: {e.how}") for e in estimates]
    return "\n".join([*lines, "  (starting and compiling not counted)", *notes])


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text,
        79,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _gigabytes(value: float) -> str:
    return quantities.size(round(value * 1e9))
