"""Where inference windows lie over a volume, and their images, read ahead.

The grid is PyTC's of before 2026-06: a stride grid plus one window that ends at the face.
BANIS's (`inference.py`), grids that are shifted by half a window, is the same for windows of
even size at an overlap of one half. `edge_windows` gives PyTC's since 2026-06. Both systems
refuse a volume smaller than the window; here it is padded by reflection.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Int

from nisbjax.errors import InputError
from nisbjax.geometry import Box, window_starts
from nisbjax.store.volume import Volume
from nisbjax.typing import Image, Triple


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions of the inference windows over one volume.

    Attributes:
      shape: of the volume, x y z. An axis shorter than the window is padded to it on both
        sides by reflection, the odd voxel behind.
      window: shape of a window.
      overlap: of neighbouring windows, 0 <= overlap < 1; stride = int(window x (1 -
        overlap)), at least 1.
      edge_windows: adds windows that stick out by window - stride on every face, filled by
        reflection, so that face voxels lie near a window's centre too (PyTC since
        2026-06); an axis that one window covers has that window alone. Published NISB
        figures are made without.
    """

    shape: Triple
    window: Triple
    overlap: float = 0.5
    edge_windows: bool = False

    def __post_init__(self):
        if min(self.shape) < 1:
            raise InputError(
                f"a volume of shape {self.shape} is empty; nothing to predict"
            )
        if min(self.window) < 1 or not 0 <= self.overlap < 1:
            raise InputError(
                f"windows of shape {self.window} with overlap {self.overlap} were asked "
                "for; wanted a shape >= 1 and 0 <= overlap < 1"
            )

    @property
    def stride(self) -> Triple:
        x, y, z = (max(1, int(w * (1 - self.overlap))) for w in self.window)
        return x, y, z

    @functools.cached_property
    def starts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """First voxels of the windows on each axis, ascending; may be negative."""
        x, y, z = map(self._axis_starts, self.shape, self.window, self.stride)
        return x, y, z

    def _axis_starts(self, size: int, window: int, stride: int) -> tuple[int, ...]:
        padded = max(size, window)
        first = -((padded - size) // 2)
        if self.edge_windows and size > window:
            reach = window - stride
            first, padded = first - reach, padded + 2 * reach
        return tuple(
            first + start
            for start in window_starts(padded, window, stride)
            if first + start < size and first + start + window > 0
        )

    @property
    def count(self) -> int:
        """Windows of the whole volume."""
        x, y, z = map(len, self.starts)
        return x * y * z

    def reaching(self, box: Box) -> tuple[list[int], list[int], list[int]]:
        """On each axis, first voxels of the windows that reach into `box`, ascending."""
        x, y, z = (
            [s for s in starts if s < stop and s + window > start]
            for starts, window, start, stop in zip(
                self.starts, self.window, box.start, box.stop, strict=True
            )
        )
        return x, y, z

    def touching(self, box: Box) -> list[Triple]:
        """First voxels of every window that reaches into `box`, in C order."""
        return list(itertools.product(*self.reaching(box)))

    def box(self, start: Triple) -> Box:
        """The voxels of the window at `start`; it may stick out of the volume."""
        x, y, z = (s + w for s, w in zip(start, self.window, strict=True))
        return Box(start, (x, y, z))


def reflect_indices(start: int, stop: int, size: int) -> Int[np.ndarray, " n"]:
    """Voxel indices start..stop-1, reflected about the first and last voxel (d c b | a b).

    An axis of one voxel repeats it. Same as `numpy.pad(mode="reflect")`.
    """
    if size == 1:
        return np.zeros(stop - start, np.int64)
    period = 2 * (size - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)


def read_window(image: Volume, box: Box) -> Image:
    """Voxels of a box that may stick out of the image, filled there by reflection."""
    shape = image.spatial_shape
    if Box.whole(shape).contains(box):
        return image.read(box)
    indices = [
        reflect_indices(a, b, size)
        for a, b, size in zip(box.start, box.stop, shape, strict=True)
    ]
    x0, y0, z0 = (int(i.min()) for i in indices)
    x1, y1, z1 = (int(i.max()) + 1 for i in indices)
    values = image.read(Box((x0, y0, z0), (x1, y1, z1)))
    for axis, (index, first) in enumerate(zip(indices, (x0, y0, z0), strict=True)):
        values = np.take(values, index - first, axis=axis)
    return values


Windows = list[tuple[Triple, Image]]


def read_ahead(
    reader: ThreadPoolExecutor, image: Volume, grid: Grid, box: Box
) -> Iterator[Windows]:
    """Windows that touch `box`, one list for each x position; the next one is read.

    Planes that two positions have in common are read once.
    """
    groups = [
        list(group)
        for _, group in itertools.groupby(grid.touching(box), key=lambda s: s[0])
    ]

    held: list[tuple[int, Image]] = []  # where the planes read last end, and they

    def read(starts: list[Triple]) -> Windows:
        last = grid.box(starts[-1])  # C order: the first and the last span the group
        union = Box(starts[0], last.stop)
        x0, y0, z0 = union.start
        known, before = held.pop() if held else (x0, None)
        values = read_window(image, Box((max(x0, known), y0, z0), union.stop))
        if before is not None and known > x0:
            values = np.concatenate([before[x0 - known :], values])
        held.append((union.stop[0], values))
        return [
            (start, values[grid.box(start).relative_to(union.start).slices])
            for start in starts
        ]

    pending: Future[Windows] | None = None
    for starts in groups:
        ahead = reader.submit(read, starts)
        if pending is not None:
            yield pending.result()
        pending = ahead
    if pending is not None:
        yield pending.result()
