"""Affinities on dark background, in the border ring and inside it, of a few planes.

The rows of PyTC's `_xy_border_rows` (`decoding/qc/affinity.py`), which holds whole planes;
here values are counted where a chunk comes by, in tables whose size does not grow with the
volume, and which are exact for 16-bit floats and bytes.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from nisbjax.geometry import Box
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

# All finite 16-bit floats are fewer, so that tables of these are never thinned out.
_MOST_VALUES = 1 << 16
_PENDING = 1 << 14  # values that wait for their table, at least


@dataclasses.dataclass(frozen=True)
class Border:
    """Which voxels of a few planes are dark, for the border rows of the report.

    Attributes:
      z: the planes, ascending.
      width: of the outer x-y ring, in voxels.
      thresh: intensity at or below which a voxel is background.
      dark: background of each plane, y packed eight to the byte.
      shape: of what is looked at.
      start: of that in its volume, along whose faces the ring is.
      volume: shape of that volume; None where this is all of it.
    """

    z: tuple[int, ...]
    width: int
    thresh: float
    dark: UInt8[np.ndarray, "r x yy"]
    shape: Triple
    start: Triple = (0, 0, 0)
    volume: Triple | None = None

    def split(
        self, row: int, x: slice, y: slice
    ) -> tuple[Bool[np.ndarray, "x y"], Bool[np.ndarray, "x y"]]:
        """Background of a part of a plane: (in the ring, inside it)."""
        dark = np.unpackbits(self.dark[row, x], axis=1, count=self.shape[1])
        dark = dark[:, y].astype(bool)
        volume = self.volume or self.shape
        rings = [
            (i < self.width) | (i >= size - self.width)
            for i, size in (
                (np.arange(x.start, x.stop) + self.start[0], volume[0]),
                (np.arange(y.start, y.stop) + self.start[1], volume[1]),
            )
        ]
        ring = rings[0][:, None] | rings[1][None, :]
        return dark & ring, dark & ~ring


@dataclasses.dataclass
class ValueCounts:
    """How often each finite value occurs; at most `_MOST_VALUES` rows once it is asked.

    Where there are more (32-bit floats), neighbouring values become their mean: quantiles
    are then off by at most that many values' share.

    Attributes:
      values: ascending.
      counts: of each.
    """

    values: Float32[np.ndarray, " v"]
    counts: Int64[np.ndarray, " v"]
    _pieces: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(
        default_factory=list
    )

    @classmethod
    def empty(cls) -> "ValueCounts":
        return cls(np.zeros(0, np.float32), np.zeros(0, np.int64))

    def add(
        self,
        values: Float32[np.ndarray, " w"],
        counts: Int64[np.ndarray, " w"] | None = None,
    ) -> None:
        """Adds values, each once where no counts are given; NaN and Inf are left out."""
        if counts is None:
            values = values[np.isfinite(values)]
            counts = np.ones(values.size, np.int64)
        self._pieces.append((values, counts))
        waiting = sum(v.size for v, _ in self._pieces)
        if waiting > max(_PENDING, self.values.size):
            self.settle()

    def settle(self) -> "ValueCounts":
        """Takes what was added into the table; returns itself."""
        if not self._pieces:
            return self
        pieces = [(self.values, self.counts), *self._pieces]
        every = np.concatenate([v for v, _ in pieces])
        weight = np.concatenate([n for _, n in pieces])
        values, row = np.unique(every, return_inverse=True)
        # Sums of counts below 2^53 are exact in float64.
        counts = np.bincount(row, weight, minlength=values.size)
        while values.size > _MOST_VALUES:
            values, counts = _halved(values, counts)
        self.values, self.counts = values.astype(np.float32), counts.astype(np.int64)
        self._pieces = []
        return self

    @property
    def total(self) -> int:
        return int(self.settle().counts.sum())

    @property
    def mean(self) -> float:
        """NaN where there is no value."""
        n = self.total
        return (
            float((self.values * self.counts.astype(np.float64)).sum() / n)
            if n
            else math.nan
        )

    def share_above(self, value: float) -> float:
        n = self.total
        return int(self.counts[self.values > value].sum()) / n if n else math.nan

    def quantile(self, q: float) -> float:
        """As numpy's, linear between neighbours; NaN where there is no value."""
        n = self.total
        if not n:
            return math.nan
        place = q * (n - 1)
        first = int(place)
        upto = np.cumsum(self.counts)
        below, above = (
            float(self.values[np.searchsorted(upto, min(i, n - 1), side="right")])
            for i in (first, first + 1)
        )
        return below + (above - below) * (place - first)


def _halved(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(0, values.size, 2)
    total = np.add.reduceat(counts, starts)
    return np.add.reduceat(values * counts, starts) / total, total


@dataclasses.dataclass
class BorderSamples:
    """Affinities on background, for each of the border's planes (r) and channel.

    Attributes:
      ring: values in the ring, `ring[r][c]`.
      inside_total, inside_count: over the finite values of background inside the ring.
    """

    ring: list[list[ValueCounts]]
    inside_total: Float64[np.ndarray, "r c"]
    inside_count: Int64[np.ndarray, "r c"]

    @classmethod
    def empty(cls, rows: int, channels: int) -> "BorderSamples":
        ring = [[ValueCounts.empty() for _ in range(channels)] for _ in range(rows)]
        shape = rows, channels
        return cls(ring, np.zeros(shape), np.zeros(shape, np.int64))

    def merge(self, other: "BorderSamples", channel: int = 0) -> None:
        channels = other.inside_total.shape[1]
        self.inside_total[:, channel : channel + channels] += other.inside_total
        self.inside_count[:, channel : channel + channels] += other.inside_count
        for mine, theirs in zip(self.ring, other.ring, strict=True):
            for c, counts in enumerate(theirs):
                counts.settle()
                if counts.values.size:
                    mine[channel + c].add(counts.values, counts.counts)

    def inside_mean(self, row: int, channel: int) -> float:
        """NaN where there is no background inside the ring."""
        n = self.inside_count[row, channel]
        return float(self.inside_total[row, channel] / n) if n else math.nan


def border_planes(depth: int, count: int) -> tuple[int, ...]:
    """z of the border rows: `linspace(margin, Z - margin - 1)`, margin 2 % of Z or 1."""
    margin = max(int(0.02 * depth), 1)
    count = min(count, 2 * depth)  # that many meet every plane
    chosen = np.linspace(margin, depth - margin - 1, count).astype(int)
    return tuple(sorted({int(z) for z in np.clip(chosen, 0, depth - 1)}))


def find_border(
    image: Volume,
    *,
    n_z_border: int,
    width: int,
    thresh: float,
    start: Triple = (0, 0, 0),
    volume: Triple | None = None,
) -> Border:
    """Reads the border's planes of the source image (first channel).

    Args:
      image: of the prediction's shape.
      n_z_border: how many planes.
      width, thresh, start, volume: as of `Border`.
    """
    shape = image.spatial_shape
    z = border_planes(shape[2], n_z_border)
    dark = np.zeros((len(z), shape[0], -(-shape[1] // 8)), np.uint8)
    step = image.spatial_chunks[0]
    for row, plane in enumerate(z):
        for x in range(0, shape[0], step):
            stop = min(x + step, shape[0])
            box = Box((x, 0, plane), (stop, shape[1], plane + 1))
            pixels = image.read_channel(box, 0)[:, :, 0]
            dark[row, x:stop] = np.packbits(pixels <= thresh, axis=1)
    return Border(z, width, thresh, dark, shape, start, volume)
