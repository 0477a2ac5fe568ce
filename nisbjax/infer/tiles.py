"""The boxes in which an output is computed: tiles of y-z, slabs of planes along x.

A tile sweeps along x and hands out one slab of planes at a time; both are cut so that the
sums, the windows that are read ahead and the slabs on their way to disk fit a memory budget.
BANIS and PyTC sum over the whole volume.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid, fit_box
from nisbjax.infer.windows import Grid
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple


class Layout(NamedTuple):
    """Of an output that is not made yet.

    Attributes:
      shape: c x y z.
      dtype: its type.
      spatial_chunks: x y z.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    spatial_chunks: Triple


def tile_shape(
    image: Volume, output: Volume | Layout, grid: Grid, *, batch: int, memory_bytes: int
) -> tuple[int, tuple[int, int]]:
    """Planes of a slab and the y-z shape of a tile that fit a memory budget.

    A tile holds, for each of its y-z voxels, sums for one window and one slab of planes,
    rounded slabs on their way to disk (finished, being written, being compressed), and
    image planes of three x positions (in use, waiting, being read).

    Args:
      image: [x y z c].
      output: [c x y z]; voxels are not looked at.
      grid: of windows over the image.
      batch: windows that the devices take at a time, all together.
      memory_bytes: the budget.

    Returns:
      Planes of a slab, and (y, z) of a tile in voxels.

    Raises:
      InputError: the budget does not hold one tile.
    """
    c, *shape = output.shape
    chunk = output.spatial_chunks
    slab = min(chunk[0], shape[0])
    planes = min(grid.window[0] + slab, shape[0])
    per_voxel = 4 * (c + 1) * planes + 3 * c * output.dtype.itemsize * slab
    in_image = 3 * grid.window[0] * image.shape[-1] * image.dtype.itemsize
    window_bytes = math.prod(grid.window) * (
        4 * c + image.shape[-1] * image.dtype.itemsize
    )
    room = memory_bytes - 4 * batch * window_bytes

    def cost(y: int, z: int) -> int:
        halo = [
            min(size, s) + 2 * w
            for size, s, w in zip((y, z), shape[1:], grid.window[1:], strict=True)
        ]
        return y * z * per_voxel + math.prod(halo) * in_image

    for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0):
        _, y, z = fit_box(
            (1, shape[1], shape[2]), (1, *chunk[1:]), float(per_voxel), share * room
        )
        if cost(y, z) <= room:
            return slab, (y, z)
    wanted = (cost(y, z) + 4 * batch * window_bytes) / 1e9
    raise InputError(
        f"predict.memory_gb={memory_bytes / 1e9:g} does not hold one tile; wanted at "
        f"least {wanted:.2f}, or a smaller predict.batch_per_device or predict.window"
    )


def finished_chunks(
    boxes: Iterable[Box], shape: Triple, chunk: Triple
) -> Bool[np.ndarray, "i j k"]:
    """Which chunks of an output lie in boxes that are done; they may differ in size."""
    done = np.zeros([-(-s // c) for s, c in zip(shape, chunk, strict=True)], bool)
    for box in boxes:
        done[_chunks_of(box, chunk)] = True
    return done


def unfinished_runs(
    column: Box, slab: int, done: Bool[np.ndarray, "i j k"], chunk: Triple
) -> list[Box]:
    """Stretches of a column, along x, of slabs with a chunk that is not done yet."""
    runs: list[Box] = []
    for box in slabs_of(column, slab):
        if done[_chunks_of(box, chunk)].all():
            continue
        if runs and runs[-1].stop[0] == box.start[0]:
            runs[-1] = Box(runs[-1].start, box.stop)
        else:
            runs.append(box)
    return runs


def slabs_of(run: Box, planes: int) -> list[Box]:
    """A box cut along x, `planes` at a time."""
    shape = run.shape
    return [box.shift(run.start) for box in box_grid(shape, (planes, *shape[1:]))]


def _chunks_of(box: Box, chunk: Triple) -> tuple[slice, ...]:
    return tuple(
        slice(a // c, -(-b // c))
        for a, b, c in zip(box.start, box.stop, chunk, strict=True)
    )
