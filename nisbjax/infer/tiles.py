"""The boxes in which an output is computed: tiles of y-z, slabs of planes along x.

A tile is computed along x and hands out one slab of planes at a time; both are cut so that
the sums, the windows that are read ahead and the slabs on their way to disk fit the memory that
there is. BANIS and PyTC sum over the whole volume.
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
    """Of an output that is not made yet, or of an image as it will be read.

    Attributes:
      shape: c x y z, or x y z c.
      dtype: its type.
      spatial_chunks: x y z.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    spatial_chunks: Triple


def tile_shape(
    image: Volume | Layout,
    output: Volume | Layout,
    grid: Grid,
    *,
    batch: int,
    memory_bytes: int,
    device_bytes: int | None = None,
) -> tuple[int, tuple[int, int]]:
    """Planes of a slab and the y-z shape of a tile that fit into memory.

    Sums exist for each y-z voxel that a tile's windows reach: those of every slab that one
    window touches, and of one slab's weights. On the host a tile has rounded slabs on their
    way to disk (finished, being written, being compressed), and image planes of three x
    positions (in use, waiting, being read), and what is new in the last.

    Args:
      image: [x y z c].
      output: [c x y z]; voxels are not looked at.
      grid: of windows over the image.
      batch: windows that the devices take at a time, all together.
      memory_bytes: the budget on the host.
      device_bytes: what is left for sums on a device with memory of its own; None where
        sums are in the host's.

    Returns:
      Planes of a slab, and (y, z) of a tile in voxels.

    Raises:
      InputError: the memory does not hold one tile.
    """
    c, *shape = output.shape
    chunk = output.spatial_chunks
    slab = min(chunk[0], shape[0])
    window = grid.window
    together = min(-(-(window[0] - 1) // slab) + 1, -(-shape[0] // slab))
    sums = 4 * (c * together + 1) * slab  # of a voxel; the same below
    rounded = c * output.dtype.itemsize * slab
    images = image.shape[-1] * image.dtype.itemsize
    of_values = 4 * c if device_bytes is None else 0
    batches = 4 * batch * math.prod(window) * (of_values + images)

    def cost(y: int, z: int) -> tuple[int, int]:
        """Bytes on the host, and on a device with memory of its own."""
        reached = math.prod(
            min(starts[-1] - starts[0] + w, size + 2 * (w - 1))
            for starts, w, size in zip(grid.starts[1:], window[1:], (y, z), strict=True)
        )
        host = batches + 3 * y * z * rounded + 4 * reached * window[0] * images
        if device_bytes is None:
            return host + reached * sums, 0
        return host, reached * sums + 2 * y * z * rounded

    for share in (*(0.9**step for step in range(200)), 0.0):  # of the y-z plane
        area = share * shape[1] * shape[2]
        _, y, z = fit_box((1, shape[1], shape[2]), (1, *chunk[1:]), 1.0, area)
        host, device = cost(y, z)
        if host <= memory_bytes and device <= (device_bytes or 0):
            return slab, (y, z)
    if host > memory_bytes:
        raise InputError(
            f"predict.memory_gb={memory_bytes / 1e9:g} does not hold one tile; wanted at "
            f"least {host / 1e9:.2f}, or a smaller predict.batch_per_device or "
            "predict.window"
        )
    raise InputError(
        f"the device has {max(device_bytes or 0, 0) / 1e9:.2f} GB beside the network, "
        f"and sums of one tile take {device / 1e9:.2f}; wanted a smaller "
        "predict.batch_per_device or predict.window"
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
