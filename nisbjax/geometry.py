"""Boxes of voxels, grids of boxes, and the positions of inference windows.

The unit of work everywhere is a `Box`: half-open, in voxels, x y z. Window positions
follow BANIS and PyTC's `snap_to_edge` (before its border windows of 2026-06): a stride
grid plus one last window that ends at the face. Where those systems cut a volume into
fixed 1024^3 groups or whole z slabs, a box here is sized to a memory budget.
"""

import dataclasses
import itertools
import math

from nisbjax.errors import InputError
from nisbjax.typing import Triple


@dataclasses.dataclass(frozen=True, order=True)
class Box:
    """The voxels v with start <= v < stop on each axis, x y z."""

    start: Triple
    stop: Triple

    @classmethod
    def whole(cls, shape: Triple) -> "Box":
        return cls((0, 0, 0), shape)

    @classmethod
    def parse(cls, text: str) -> "Box":
        """Reads `x0:x1,y0:y1,z0:z1`, the form that `str(box)` writes."""
        try:
            ranges = [tuple(map(int, part.split(":"))) for part in text.split(",")]
            (x0, x1), (y0, y1), (z0, z1) = ranges
        except ValueError:
            raise InputError(
                f"a box was given as {text!r}; wanted x0:x1,y0:y1,z0:z1 in voxels"
            ) from None
        return cls((x0, y0, z0), (x1, y1, z1))

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> Triple:
        x, y, z = (max(b - a, 0) for a, b in zip(self.start, self.stop, strict=True))
        return x, y, z

    @property
    def size(self) -> int:
        """Voxels inside."""
        return math.prod(self.shape)

    @property
    def empty(self) -> bool:
        return self.size == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        x, y, z = map(slice, self.start, self.stop)
        return x, y, z

    def grow(self, low: Triple | int, high: Triple | int) -> "Box":
        """Adds `low` voxels before and `high` voxels behind on each axis."""
        before = (low, low, low) if isinstance(low, int) else low
        behind = (high, high, high) if isinstance(high, int) else high
        return Box(_minus(self.start, before), _plus(self.stop, behind))

    def shift(self, by: Triple) -> "Box":
        return Box(_plus(self.start, by), _plus(self.stop, by))

    def relative_to(self, origin: Triple) -> "Box":
        """The same voxels, counted from `origin`."""
        return Box(_minus(self.start, origin), _minus(self.stop, origin))

    def intersect(self, other: "Box") -> "Box":
        """The common voxels; a box of shape zero on some axis if there are none."""
        x, y, z = map(max, self.start, other.start)
        start = (x, y, z)
        x, y, z = map(max, start, map(min, self.stop, other.stop))
        return Box(start, (x, y, z))

    def clip(self, shape: Triple) -> "Box":
        """The part inside a volume of this shape."""
        return self.intersect(Box.whole(shape))

    def contains(self, other: "Box") -> bool:
        return all(
            a <= c and d <= b
            for a, b, c, d in zip(
                self.start, self.stop, other.start, other.stop, strict=True
            )
        )


def _plus(a: Triple, b: Triple) -> Triple:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _minus(a: Triple, b: Triple) -> Triple:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def box_grid(shape: Triple, box_shape: Triple) -> list[Box]:
    """Disjoint boxes that cover `shape` in C order (x slowest); the last ones smaller.

    Raises:
      InputError: an axis of `box_shape` is not positive.
    """
    if min(box_shape) < 1:
        raise InputError(f"boxes of shape {box_shape} were asked for; wanted >= 1")
    x, y, z = (range(0, size, b) for size, b in zip(shape, box_shape, strict=True))
    return [
        Box(start, _plus(start, box_shape)).clip(shape)
        for start in itertools.product(x, y, z)
    ]


def fit_box(
    shape: Triple, chunk: Triple, bytes_per_voxel: float, budget_bytes: float
) -> Triple:
    """The largest chunk-aligned box that a memory budget allows, near-cubic in chunks.

    Axes grow by whole chunks, the shortest (in voxels) first, until none fits the budget
    or the volume is covered.

    Args:
      shape: of the volume, in voxels.
      chunk: on disk; a box is a multiple of it, or the whole axis.
      bytes_per_voxel: that the work needs for each voxel of a box.
      budget_bytes: for one box.

    Returns:
      The shape of a box; one chunk even where that exceeds the budget (the caller knows
      whether to warn or to refuse).
    """
    chunks = [max(1, min(c, s)) for c, s in zip(chunk, shape, strict=True)]
    box = list(chunks)
    growing = [axis for axis in range(3) if box[axis] < shape[axis]]
    while growing:
        axis = min(growing, key=lambda a: box[a])
        larger = list(box)
        larger[axis] = min(box[axis] + chunks[axis], shape[axis])
        if math.prod(larger) * bytes_per_voxel > budget_bytes:
            growing.remove(axis)
            continue
        box = larger
        if box[axis] == shape[axis]:
            growing.remove(axis)
    return box[0], box[1], box[2]


def window_starts(size: int, window: int, stride: int) -> tuple[int, ...]:
    """First voxels of the windows along one axis: 0, s, 2s, ... and `size - window`.

    An axis of 3000 voxels with window 128 and stride 64 has 46 windows, 2250 has 35, as in
    BANIS (whose base grid plus half-shifted copies is the same set).

    Raises:
      InputError: the window does not fit, or the stride is not positive.
    """
    if not 1 <= window <= size or stride < 1:
        raise InputError(
            f"a window of {window} voxels with stride {stride} was asked for on an axis "
            f"of {size}; wanted 1 <= window <= {size} and a stride >= 1"
        )
    starts = list(range(0, size - window + 1, stride))
    if starts[-1] != size - window:
        starts.append(size - window)
    return tuple(starts)
