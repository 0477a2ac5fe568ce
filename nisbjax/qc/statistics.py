"""Per-plane statistics of a prediction, from one pass over its chunks.

What PyTC's `scan_prediction` (`decoding/qc/affinity.py`) reads from every tenth plane is
here summed for every plane, in storage order and in bounded memory: 16-bit floats are
decoded as integers inside the kernel, and sums of affinities in float64 are exact, so no
order of chunks changes them. NaN and Inf are counted and left out of the sums, where the
reference lets one of them spoil its plane.
"""

import dataclasses
import functools
import json
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt8

from nisbjax.cluster import map_boxes
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.qc import kernels
from nisbjax.typing import Triple
from nisbjax.volume import Volume

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


@dataclasses.dataclass(frozen=True)
class Border:
    """Which voxels of a few planes are dark, for the border rows of the report.

    Attributes:
      z: the planes, ascending.
      width: of the outer x-y ring, in voxels.
      thresh: intensity at or below which a voxel is background.
      dark: background of each plane, y packed eight to the byte.
      shape: of the volume.
    """

    z: tuple[int, ...]
    width: int
    thresh: float
    dark: UInt8[np.ndarray, "r x yy"]
    shape: Triple

    def split(
        self, row: int, x: slice, y: slice
    ) -> tuple[Bool[np.ndarray, "x y"], Bool[np.ndarray, "x y"]]:
        """Background of a part of a plane: (in the ring, inside it)."""
        dark = np.unpackbits(self.dark[row, x], axis=1, count=self.shape[1])
        dark = dark[:, y].astype(bool)
        rings = [
            (i < self.width) | (i >= size - self.width)
            for i, size in (
                (np.arange(x.start, x.stop), self.shape[0]),
                (np.arange(y.start, y.stop), self.shape[1]),
            )
        ]
        ring = rings[0][:, None] | rings[1][None, :]
        return dark & ring, dark & ~ring


@dataclasses.dataclass
class BorderSamples:
    """Affinities on background, for each of the border's planes (r) and channel.

    Attributes:
      ring: values in the ring, `ring[r][c]` a list of pieces.
      inside_total, inside_count: over the background inside the ring.
    """

    ring: list[list[list[Float32[np.ndarray, " _"]]]]
    inside_total: Float64[np.ndarray, "r c"]
    inside_count: Int64[np.ndarray, "r c"]

    @classmethod
    def empty(cls, rows: int, channels: int) -> "BorderSamples":
        ring = [[[] for _ in range(channels)] for _ in range(rows)]
        shape = rows, channels
        return cls(ring, np.zeros(shape), np.zeros(shape, np.int64))

    def merge(self, other: "BorderSamples", channel: int = 0) -> None:
        channels = other.inside_total.shape[1]
        self.inside_total[:, channel : channel + channels] += other.inside_total
        self.inside_count[:, channel : channel + channels] += other.inside_count
        for mine, theirs in zip(self.ring, other.ring, strict=True):
            for c, pieces in enumerate(theirs):
                mine[channel + c] += pieces

    def values(self, row: int, channel: int) -> Float32[np.ndarray, " _"]:
        pieces = self.ring[row][channel]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


@dataclasses.dataclass
class Statistics:
    """Everything that a report needs of a prediction.

    Attributes:
      shape: of the prediction, x y z.
      planes: sums of every plane.
      border: planes whose background was looked at; None without an image.
      samples: affinities there.
    """

    shape: Triple
    planes: PlaneSums
    border: Border | None = None
    samples: BorderSamples | None = None

    def merge(self, other: "Statistics", channel: int = 0, z: int = 0) -> None:
        self.planes.merge(other.planes, channel, z)
        if self.samples is not None and other.samples is not None:
            self.samples.merge(other.samples, channel)


def border_planes(depth: int, count: int) -> tuple[int, ...]:
    """z of the border rows: `linspace(margin, Z - margin - 1)`, margin 2 % of Z or 1."""
    margin = max(int(0.02 * depth), 1)
    chosen = np.linspace(margin, depth - margin - 1, count).astype(int)
    return tuple(sorted({int(z) for z in np.clip(chosen, 0, depth - 1)}))


def find_border(image: Volume, *, n_z_border: int, width: int, thresh: float) -> Border:
    """Reads the border's planes of the source image (first channel)."""
    shape = image.spatial_shape
    z = border_planes(shape[2], n_z_border)
    dark = np.zeros((len(z), shape[0], -(-shape[1] // 8)), np.uint8)
    step = image.spatial_chunks[0]
    for row, plane in enumerate(z):
        for x in range(0, shape[0], step):
            stop = min(x + step, shape[0])
            pixels = image.read(Box((x, 0, plane), (stop, shape[1], plane + 1)))
            pixels = pixels.reshape(stop - x, shape[1], -1)[..., 0]
            dark[row, x:stop] = np.packbits(pixels <= thresh, axis=1)
    return Border(z, width, thresh, dark, shape)


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
            if ring.any():
                part.samples.ring[row][c].append(plane[ring])
            part.samples.inside_total[row, c] = plane[inside].sum(dtype=np.float64)
            part.samples.inside_count[row, c] = inside.sum()
    return part


def save(statistics: Statistics, path: str | os.PathLike, made_from: str) -> None:
    """Writes statistics as one npz, renamed into place.

    Args:
      statistics: of a whole prediction or of a part.
      path: of the file.
      made_from: says which prediction; `load` compares it.
    """
    arrays: dict[str, Any] = dataclasses.asdict(statistics.planes)
    facts: dict[str, Any] = {"made_from": made_from, "shape": statistics.shape}
    border, samples = statistics.border, statistics.samples
    if border is not None and samples is not None:
        facts |= {"z": border.z, "width": border.width, "thresh": border.thresh}
        arrays |= {
            "inside_total": samples.inside_total,
            "inside_count": samples.inside_count,
        }
        for row in range(len(border.z)):
            for c in range(samples.inside_total.shape[1]):
                arrays[f"ring_{row}_{c}"] = samples.values(row, c)
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: str | os.PathLike, made_from: str) -> Statistics | None:
    """Statistics of exactly this prediction; None if there are none (any more)."""
    if not pathlib.Path(path).is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        facts = json.loads(str(file["facts"]))
        if facts["made_from"] != made_from:
            return None
        names = [field.name for field in dataclasses.fields(PlaneSums)]
        planes = PlaneSums(**{name: file[name] for name in names})
        shape = tuple(facts["shape"])
        if "z" not in facts:
            return Statistics(shape, planes)
        rows, channels = file["inside_total"].shape
        samples = BorderSamples(
            [[[file[f"ring_{r}_{c}"]] for c in range(channels)] for r in range(rows)],
            file["inside_total"],
            file["inside_count"],
        )
    none = np.zeros((rows, 0, 0), np.uint8)  # the samples are taken already
    border = Border(tuple(facts["z"]), facts["width"], facts["thresh"], none, shape)
    return Statistics(shape, planes, border, samples)


def empty(
    shape: Triple, channels: int, border: Border | None, depth: int | None = None
) -> Statistics:
    """Statistics of nothing yet, for all planes of a volume or for `depth` of them."""
    planes = PlaneSums.empty(channels, shape[2] if depth is None else depth)
    if border is None:
        return Statistics(shape, planes)
    return Statistics(
        shape, planes, border, BorderSamples.empty(len(border.z), channels)
    )


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
