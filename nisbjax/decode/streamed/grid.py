"""The boxes of a streamed decode: whole chunks, as large as memory allows."""

import dataclasses
import functools
import itertools
import math

import numpy as np
from absl import logging

from nisbjax.geometry import Box, box_grid, fit_box
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

AT_ONCE = 2  # boxes, so that one computes while another reads or writes
_UNCHUNKED = 64  # boxes are multiples of this where a store names no chunks
PARTS = 4  # chunks of provisional labels along a side of a box whose halo is read
_AROUND = 9_500_000  # voxels of a box and its halo; about 212 along each side
_SMALL = 1 << 21  # voxels that are not worth dividing


@dataclasses.dataclass(frozen=True)
class BoxGrid:
    """Boxes of one shape over a volume, in C order; the last ones are smaller."""

    shape: Triple
    box_shape: Triple

    @functools.cached_property
    def boxes(self) -> list[Box]:
        return box_grid(self.shape, self.box_shape)

    @functools.cached_property
    def counts(self) -> Triple:
        x, y, z = (-(-s // b) for s, b in zip(self.shape, self.box_shape, strict=True))
        return x, y, z

    def position(self, index: int) -> Triple:
        x, y, z = map(int, np.unravel_index(index, self.counts))
        return x, y, z

    def neighbour(self, index: int, axis: int, step: int) -> int | None:
        """The box behind (+1) or before (-1) on an axis; None at the volume's face."""
        position = list(self.position(index))
        position[axis] += step
        if not 0 <= position[axis] < self.counts[axis]:
            return None
        return int(np.ravel_multi_index(position, self.counts))

    def around(self, index: int, halo: int) -> Box:
        """A box and the voxels beside it, as far as the volume goes."""
        return self.boxes[index].grow(halo, halo).clip(self.shape)

    def meeting(self, region: Box) -> list[int]:
        """The boxes that have voxels of a region."""
        spans = [
            range(start // b, -(-stop // b))
            for start, stop, b in zip(
                region.start, region.stop, self.box_shape, strict=True
            )
        ]
        return [
            int(np.ravel_multi_index(position, self.counts))
            for position in itertools.product(*spans)
        ]

    def holds_whole(self, volume: Volume) -> bool:
        """Whether no chunk of a volume [x y z] lies in two boxes."""
        return all(
            b % c == 0 or b >= s
            for b, c, s in zip(self.box_shape, volume.chunks, self.shape, strict=True)
        )

    def seams(self, index: int) -> list[tuple[int, int]]:
        """(axis, 0 or -1) of the faces that a box shares with another."""
        return [
            (axis, side)
            for axis, side in itertools.product(range(3), (0, -1))
            if self.neighbour(index, axis, 1 if side else -1) is not None
        ]


def choose_box(
    affinities: Volume,
    bytes_per_voxel: float,
    memory_gb: float,
    *,
    output: Volume | None = None,
    divide: bool = False,
) -> Triple:
    """Boxes of whole chunks of which two fit, or parts of chunks where one does not.

    Chunks that must be taken apart are read several times; a warning says how often, and
    what memory or storage avoids it.

    Args:
      affinities: [c x y z].
      bytes_per_voxel: that the work on a box needs.
      memory_gb: for all boxes at work.
      output: [x y z], whose chunks a box does not share with another either.
      divide: makes at least two boxes of all but small volumes, for two threads.
    """
    shape = affinities.spatial_shape
    # A box has its labels in 32 bits.
    budget = min(memory_gb * 1e9 / AT_ONCE, (2**32 - 1) * bytes_per_voxel)
    voxels = math.prod(shape)
    if divide and voxels > _SMALL:
        budget = min(budget, 0.6 * voxels * bytes_per_voxel)
    units = (
        math.lcm(a, b) if max(a, b) > 1 else _UNCHUNKED
        for a, b in zip(_chunks(affinities), _chunks(output), strict=True)
    )
    unit = [min(u, s) for u, s in zip(units, shape, strict=True)]
    x, y, z = unit
    box = fit_box(shape, (x, y, z), bytes_per_voxel, budget)
    if math.prod(box) * bytes_per_voxel <= budget:
        return box
    while math.prod(unit) * bytes_per_voxel > budget and max(unit) > 1:
        axis = int(np.argmax(unit))
        unit[axis] = -(-unit[axis] // 2)
    needed = math.prod(box) * bytes_per_voxel * AT_ONCE / 1e9
    if needed > memory_gb:
        logging.warning(
            "%s has chunks of %s, which need %.1f GB at a time; with memory_gb=%g each is "
            "read about %d times. Raise decode.memory_gb to %.1f, or store smaller chunks",
            affinities.source,
            affinities.chunks,
            needed,
            memory_gb,
            -(-math.prod(box) // math.prod(unit)),
            needed + 0.1,
        )
    x, y, z = unit
    return x, y, z


def even_grid(shape: Triple, halo: int, most: int = _AROUND) -> BoxGrid:
    """Boxes that depend on the volume alone, for results that depend on boxes.

    The longest side of a box is divided until a box is small enough; boxes of a divided
    axis are as even as multiples of `PARTS` can be.

    Args:
      halo: voxels beside a box that are read with it.
      most: voxels of a box and its halo.
    """
    box, counts = list(shape), [1, 1, 1]
    while (
        math.prod(min(b + 2 * halo, s) for b, s in zip(box, shape, strict=True)) > most
    ):
        axis = int(np.argmax(box))
        if box[axis] <= PARTS:
            break
        counts[axis] += 1
        part = -(-shape[axis] // counts[axis])
        box[axis] = -(-part // PARTS) * PARTS
    x, y, z = box
    return BoxGrid(shape, (x, y, z))


def _chunks(volume: Volume | None) -> Triple:
    """Chunks along x, y and z; 1 on axes that the store does not divide."""
    if volume is None:
        return 1, 1, 1
    layout = volume.store.chunk_layout.read_chunk.shape or (0,) * volume.rank
    x, y, z = (max(1, layout[volume.axes.index(a)] or 1) for a in "xyz")
    return x, y, z
