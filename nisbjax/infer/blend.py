"""How the overlapping answers of inference windows become one value for each voxel.

The weights follow BANIS `inference.py`. PyTC sums in float16 over the whole volume; here
both sums are float32 and exist for a slab of planes that rolls along x, and each voxel
adds its windows in C order of the grid, whatever the boxes of work are.
"""

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Shaped

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.typing import Triple, Weights


def _distance(window: Triple) -> Weights:
    ramps = [
        np.minimum(np.arange(1, w + 1), np.arange(w, 0, -1)).astype(np.float32)
        for w in window
    ]
    x, y, z = np.ix_(*ramps)
    return np.minimum(np.minimum(x, y), z)


def _bump(window: Triple) -> Weights:
    kernels = []
    for w in window:
        u = np.arange(1, w + 1) / (w + 1) * 2 - 1
        kernel = np.exp(-1 / (1 - u**2))
        kernels.append(kernel / kernel.max())
    x, y, z = np.ix_(*kernels)
    return np.maximum(x * y * z, 1e-5).astype(np.float32)


def _constant(window: Triple) -> Weights:
    return np.ones(window, np.float32)


KINDS = {"distance": _distance, "bump": _bump, "constant": _constant}


def window_weights(window: Triple, kind: str = "distance") -> Weights:
    """How much each voxel of a window counts in the average; never 0.

    `distance`: W(p) = min over axes of min(p_a + 1, w_a - p_a), the chessboard distance
    to the outside (BANIS). `bump`: product over axes of exp(-1 / (1 - u^2)), floored at
    1e-5 (PyTC, SNEMI3D). `constant`: 1.

    Raises:
      InputError: an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"predict.blend={kind!r} is not one of {sorted(KINDS)}")
    return KINDS[kind](window)


@no_type_check
@numba.njit(nogil=True, cache=True)
def _add_planes(values, weights, predicted, scale, low, high, at, first, stop):
    """Adds planes first..stop-1 of one window that lies at `at` in the rolling buffer."""
    planes = values.shape[1]
    for x in range(first, stop):
        plane = (at[0] + x) % planes
        for y in range(low[1], high[1]):
            to_y = y + at[1]
            for z in range(low[2], high[2]):
                weights[plane, to_y, z + at[2]] += scale[x, y, z]
            for c in range(values.shape[0]):
                for z in range(low[2], high[2]):
                    values[c, plane, to_y, z + at[2]] += (
                        predicted[c, x, y, z] * scale[x, y, z]
                    )


class Sweep:
    """Sums of values and of weights for one y-z tile, over planes that roll along x.

    Windows are added in ascending x; `take` hands out planes to which no later window
    adds, and frees them. 4 (c + 1) bytes per voxel of `planes` x tile.

    Args:
      tile: the voxels to fill; its x range bounds what is ever taken.
      channels: c.
      planes: kept at a time; at least the window plus one slab.
      weights: of a window.
      threads: that add one window together, each some of its planes.
    """

    def __init__(
        self,
        tile: Box,
        *,
        channels: int,
        planes: int,
        weights: Weights,
        threads: int = 0,
    ):
        _, y, z = tile.shape
        self.tile = tile
        self._scale = weights
        self._values = np.zeros((channels, planes, y, z), np.float32)
        self._weights = np.zeros((planes, y, z), np.float32)
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool: Executor = ThreadPoolExecutor(self._threads)

    def close(self) -> None:
        self._pool.shutdown()

    def add(self, start: Triple, predicted: Float32[np.ndarray, "c x y z"]) -> None:
        """Adds weight x value of the window at `start`, as far as it lies in the tile."""
        window = self._scale.shape
        box = Box(start, tuple(s + w for s, w in zip(start, window, strict=True)))
        inside = box.intersect(self.tile)
        if inside.empty:
            return
        low = tuple(a - s for a, s in zip(inside.start, start, strict=True))
        high = tuple(b - s for b, s in zip(inside.stop, start, strict=True))
        at = tuple(s - t for s, t in zip(start, self.tile.start, strict=True))
        step = -(-(high[0] - low[0]) // self._threads)
        jobs = [
            self._pool.submit(
                _add_planes,
                self._values,
                self._weights,
                predicted,
                self._scale,
                low,
                high,
                at,
                first,
                min(first + step, high[0]),
            )
            for first in range(low[0], high[0], step)
        ]
        for job in jobs:
            job.result()

    def take(self, x0: int, x1: int, dtype: np.dtype) -> Shaped[np.ndarray, "c x y z"]:
        """The averages of planes x0..x1-1, rounded to `dtype`; their sums become 0.

        uint8 stands for value x 255, rounded half to even.

        Raises:
          AssertionError: a voxel without weight, which would be written as NaN.
        """
        channels, planes, y, z = self._values.shape
        out = np.empty((channels, x1 - x0, y, z), dtype)

        def finish(x: int) -> None:
            plane = (x - self.tile.start[0]) % planes
            weight = self._weights[plane]
            if not weight.all():
                raise AssertionError(f"no window covers all voxels of plane {x}")
            for c in range(channels):
                mean = self._values[c, plane]
                np.divide(mean, weight, out=mean)
                if dtype == np.uint8:
                    np.rint(np.multiply(mean, 255, out=mean), out=mean)
                out[c, x - x0] = mean
            self._values[:, plane] = 0
            weight[:] = 0

        list(self._pool.map(finish, range(x0, x1)))
        return out
