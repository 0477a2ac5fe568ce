"""Per-plane statistics of a prediction, from one pass over its chunks.

What PyTC's `scan_prediction` (`decoding/qc/affinity.py`) reads from every tenth plane is
here summed for every plane, in storage order and in bounded memory: 16-bit floats are
decoded as integers inside the kernel, and sums of affinities in float64 are exact, so no
order of chunks changes them. NaN and Inf are counted and left out of the sums, where the
reference lets one of them spoil its plane.
"""

import dataclasses
import functools
import os

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from nisbjax.errors import InputError
from nisbjax.parallel.cluster import map_boxes
from nisbjax.qc import end_planes
from nisbjax.qc import plane_sums as kernels
from nisbjax.qc.border import Border, BorderSamples
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

_UNIT_VALUES = 1 << 21  # read at once by one thread


@dataclasses.dataclass
class PlaneSums:
    """Sums over the x-y planes of each channel, [c z]; z is the last spatial axis.

    Attributes:
      count: finite values.
      nan, inf: values that are not.
      total, squares: sums of the finite values and of their squares.
      low, high: smallest and largest finite value (inf and -inf where there is none).
    """

    count: Int64[np.ndarray, "c z"]
    nan: Int64[np.ndarray, "c z"]
    inf: Int64[np.ndarray, "c z"]
    total: Float64[np.ndarray, "c z"]
    squares: Float64[np.ndarray, "c z"]
    low: Float32[np.ndarray, "c z"]
    high: Float32[np.ndarray, "c z"]

    @classmethod
    def empty(cls, channels: int, planes: int) -> "PlaneSums":
        shape = channels, planes
        count, nan, inf = np.zeros((3, *shape), np.int64)
        total, squares = np.zeros((2, *shape), np.float64)
        low = np.full(shape, np.inf, np.float32)
        return cls(count, nan, inf, total, squares, low, -low)

    def merge(self, other: "PlaneSums", channel: int = 0, z: int = 0) -> None:
        """Adds the sums of a part whose first channel and plane are given."""
        channels, planes = other.count.shape
        at = np.s_[channel : channel + channels, z : z + planes]
        for name in ("count", "nan", "inf", "total", "squares"):
            getattr(self, name)[at] += getattr(other, name)
        np.minimum(self.low[at], other.low, out=self.low[at])
        np.maximum(self.high[at], other.high, out=self.high[at])

    @property
    def mean(self) -> Float64[np.ndarray, "c z"]:
        """NaN for a plane without a finite value."""
        return self.total / np.where(self.count, self.count, np.nan)

    @property
    def std(self) -> Float64[np.ndarray, "c z"]:
        variance = self.squares / np.where(self.count, self.count, np.nan)
        return np.sqrt(np.maximum(variance - self.mean**2, 0))


@dataclasses.dataclass
class Statistics:
    """Everything that a report needs of a prediction.

    Attributes:
      shape: of the prediction, x y z.
      planes: sums of every plane.
      pictures: of the planes at both ends, see `end_planes`.
      picture_start: first plane, row and column of the pictures in the whole's.
      border: planes whose background was looked at; None without an image.
      samples: affinities there.
    """

    shape: Triple
    planes: PlaneSums
    pictures: end_planes.Pictures
    picture_start: Triple = (0, 0, 0)
    border: Border | None = None
    samples: BorderSamples | None = None

    def merge(self, other: "Statistics", channel: int = 0, z: int = 0) -> None:
        self.planes.merge(other.planes, channel, z)
        at = tuple(
            slice(theirs - mine, theirs - mine + size)
            for theirs, mine, size in zip(
                other.picture_start,
                self.picture_start,
                other.pictures.shape,
                strict=True,
            )
        )
        self.pictures[at] += other.pictures
        if self.samples is not None and other.samples is not None:
            self.samples.merge(other.samples, channel)


def scan(
    prediction: Volume, border: Border | None = None, *, threads: int = 0
) -> Statistics:
    """Reads a prediction once, chunk by chunk, and returns its statistics.

    Args:
      prediction: [c x y z], float16, float32 or uint8 (value / 255).
      border: from `find_border`; None to leave the border rows out.
      threads: 0 for two for each core: one inflates while the other waits for the disk.

    Raises:
      InputError: the border is of a volume of another shape.
    """
    channels, shape = prediction.shape[0], prediction.spatial_shape
    if border is not None and border.shape != shape:
        raise InputError(
            f"image {border.shape} does not match the prediction {shape}; name its image "
            "with --config.qc.image"
        )
    whole = empty(shape, channels, border)
    units = _units(prediction.shape, prediction.chunks)
    work = functools.partial(_measure_unit, prediction, border)
    threads = threads or 2 * len(os.sched_getaffinity(0))
    for unit, part in zip(
        units,
        map_boxes(work, units, workers=threads, description="qc"),
        strict=True,
    ):
        whole.merge(part, unit[0].start, unit[3].start)
    return whole


def measure(
    values: Shaped[np.ndarray, "c x y z"],
    start: Triple,
    border: Border | None,
    shape: Triple,
) -> Statistics:
    """Statistics of one part of a prediction that begins at voxel `start`.

    Its planes count from `start`; its border samples belong to the whole volume's rows.
    """
    channels, x, y, depth = values.shape
    part = empty(shape, channels, border, depth)
    part.pictures, part.picture_start = end_planes.take(values, start, shape)
    p = part.planes
    sums = p.count, p.nan, p.inf, p.total, p.squares, p.low, p.high
    if values.dtype == np.float16:
        kernels.sum_halves(np.ascontiguousarray(values).view(np.uint16), *sums)
    else:
        kernels.sum_floats(np.ascontiguousarray(_as_float(values)), *sums)
    if border is None or part.samples is None:
        return part
    for row, z in enumerate(border.z):
        if not start[2] <= z < start[2] + depth:
            continue
        ring, inside = border.split(
            row, slice(start[0], start[0] + x), slice(start[1], start[1] + y)
        )
        for c in range(channels):
            plane = _as_float(values[c, :, :, z - start[2]])
            part.samples.ring[row][c].add(plane[ring])
            within = plane[inside & np.isfinite(plane)]
            part.samples.inside_total[row, c] = within.sum(dtype=np.float64)
            part.samples.inside_count[row, c] = within.size
    return part


def empty(
    shape: Triple, channels: int, border: Border | None, depth: int | None = None
) -> Statistics:
    """Statistics of nothing yet, for all planes of a volume or for `depth` of them.

    Those of a part have no pictures yet.
    """
    planes = PlaneSums.empty(channels, shape[2] if depth is None else depth)
    none = np.zeros((0, 0, 0), np.uint16)
    pictures = end_planes.empty(shape) if depth is None else none
    found = Statistics(shape, planes, pictures, border=border)
    if border is not None:
        found.samples = BorderSamples.empty(len(border.z), channels)
    return found


def _units(
    shape: tuple[int, ...], chunks: tuple[int, ...]
) -> list[tuple[slice, slice, slice, slice]]:
    """Whole chunks in storage order, joined along z up to a few megabytes."""
    c, x, y, z = (min(a, b) for a, b in zip(chunks, shape, strict=True))
    z *= max(1, min(_UNIT_VALUES // (c * x * y * z), -(-shape[3] // z)))
    steps = c, x, y, z
    counts = [-(-size // step) for size, step in zip(shape, steps, strict=True)]
    units = []
    for index in np.ndindex(*counts):
        c, x, y, z = (
            slice(i * step, min((i + 1) * step, size))
            for i, step, size in zip(index, steps, shape, strict=True)
        )
        units.append((c, x, y, z))
    return units


def _measure_unit(
    prediction: Volume, border: Border | None, unit: tuple[slice, ...]
) -> Statistics:
    values = prediction.read(unit)
    start = unit[1].start, unit[2].start, unit[3].start
    return measure(values, start, border, prediction.spatial_shape)


def _as_float(values: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    as_float = values.astype(np.float32)
    return as_float / np.float32(255) if values.dtype == np.uint8 else as_float
