"""Sums of overlapping windows, on the device, for slabs of planes that follow along x.

A slab's sums are one array, as wide in y and z as the windows of its tile reach, so that no
window is cut there, and the same programs serve every position. BANIS and PyTC bring each
window to the host and add it there; here a voxel comes down once, rounded.

Windows arrive weighted. One program that multiplied and added would round once where two
round twice (XLA contracts a product and a sum, on some processors), so that values depended
on the compiler; the product is made by the network's program, the sum by one here.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Shaped

from nisbjax.geometry import Box
from nisbjax.infer.windows import Grid
from nisbjax.typing import Triple


class Sums:
    """Sums of values and of weights over one run of slabs of one tile.

    Windows are added in ascending x; `take` hands out a slab to which no later window adds,
    and frees it. Each voxel adds its windows in the order in which they come. What a window
    has outside the run is not looked at.

    Args:
      run: the slabs' voxels, in the image's coordinates.
      slab: planes of a slab; the last one may end early.
      grid: of windows.
      weights: of a window, on the device on which sums are made.
      channels: c.

    Raises:
      AssertionError: a voxel in no window, which would be written as NaN.
    """

    def __init__(
        self,
        run: Box,
        slab: int,
        grid: Grid,
        weights: Float32[Array, "x y z"],
        *,
        channels: int,
    ):
        self._run, self._slab, self._window = run, slab, grid.window
        self._starts = grid.reaching(run)
        _require_cover(run, self._starts, grid.window)
        (self._device,) = weights.devices()
        _, *inside = self._starts
        self._origin = tuple(starts[0] for starts in inside)
        self._reach = tuple(
            starts[-1] - starts[0] + w
            for starts, w in zip(inside, grid.window[1:], strict=True)
        )
        self._channels = channels
        self._weights = weights[None, None]  # a batch of one window of one channel
        self._values: dict[int, Array] = {}  # [c x y z], by the slab's first plane
        self._spare: list[Array] = []  # zeros again
        self._total: tuple[list[int], Array] | None = None

    def wait(self) -> None:
        """Returns once all windows that came are added."""
        jax.block_until_ready(list(self._values.values()))

    def add(
        self,
        start: Triple,
        weighted: Float32[Array, "b c x y z"],
        index: int,
    ) -> None:
        """Adds window `index` of a batch, which lies at `start`, value x weight by voxel."""
        x0, x1 = self._run.start[0], self._run.stop[0]
        low, high = max(start[0], x0), min(start[0] + self._window[0], x1)
        for first in range(low - (low - x0) % self._slab, high, self._slab):
            if first not in self._values:
                self._values[first] = self._zeros()
            self._values[first] = self._added(
                self._values[first], first, start, weighted, index
            )

    def take(self, box: Box, dtype: np.dtype) -> Shaped[Array, "c x y z"]:
        """The averages in a slab's box, rounded to `dtype` on the device.

        uint8 stands for value x 255, rounded half to even.
        """
        first = box.start[0]
        corner = np.array(
            [a - b for a, b in zip(box.start[1:], self._origin, strict=True)], np.int32
        )
        total = self._total_of(first)
        values, zeros = _mean(
            self._values.pop(first),
            total,
            corner,
            shape=box.shape,
            dtype=np.dtype(dtype),
        )
        self._spare.append(zeros)
        return values

    def _zeros(self) -> Array:
        if self._spare:
            return self._spare.pop()
        shape = (self._channels, self._slab, *self._reach)
        return jnp.zeros(shape, jnp.float32, device=self._device)

    def _added(
        self, sums: Array, first: int, start: Triple, weighted: Array, index: int
    ) -> Array:
        """A slab's sums and what one window has of its planes."""
        y, z = (a - b for a, b in zip(start[1:], self._origin, strict=True))
        low = max(start[0], first)
        high = min(start[0] + self._window[0], first + self._slab)
        for x, planes in _pieces(low, high):
            at = np.array([index, x - start[0], x - first, y, z], np.int32)
            sums = _add(sums, weighted, at, planes=planes)
        return sums

    def _total_of(self, first: int) -> Float32[Array, "1 x y z"]:
        """Sums of weights in a slab; it keeps those of the last slab, most are alike."""
        xs, ys, zs = self._starts
        near = [
            x - first
            for x in xs
            if x < first + self._slab and x + self._window[0] > first
        ]
        if self._total is None or self._total[0] != near:
            self._total = None  # frees it first
            shape = (1, self._slab, *self._reach)
            total = jnp.zeros(shape, jnp.float32, device=self._device)
            for x in near:
                for y in ys:
                    for z in zs:
                        start = x + first, y, z
                        total = self._added(total, first, start, self._weights, 0)
            self._total = near, total
        return self._total[1]


def _require_cover(run: Box, starts: Sequence[Sequence[int]], window: Triple) -> None:
    for begin, end, along, w in zip(run.start, run.stop, starts, window, strict=True):
        reached = begin
        for start in along:
            if start > reached:
                break
            reached = start + w
        if reached < end:
            raise AssertionError(f"no window covers all voxels of {run}")


def _pieces(low: int, high: int) -> Iterator[tuple[int, int]]:
    """Planes low..high-1 in pieces of 2^n, so that few programs serve all positions."""
    while low < high:
        planes = 1 << (high - low).bit_length() - 1
        yield low, planes
        low += planes


@functools.partial(jax.jit, donate_argnums=0, static_argnames="planes")
def _add(
    sums: Float32[Array, "c x y z"],
    weighted: Float32[Array, "b c i j k"],
    at: Int[Array, "5"],
    *,
    planes: int,
) -> Float32[Array, "c x y z"]:
    """Adds planes of one window in place; `at`: its index, its plane, x y z in `sums`."""
    index, plane, x, y, z = at
    _, c, _, *inside = weighted.shape
    part = jax.lax.dynamic_slice(
        weighted, (index, 0, plane, 0, 0), (1, c, planes, *inside)
    )[0]
    before = jax.lax.dynamic_slice(sums, (0, x, y, z), part.shape)
    return jax.lax.dynamic_update_slice(sums, before + part, (0, x, y, z))


@functools.partial(jax.jit, donate_argnums=0, static_argnames=("shape", "dtype"))
def _mean(
    values: Float32[Array, "c x y z"],
    total: Float32[Array, "1 x y z"],
    corner: Int[Array, "2"],
    *,
    shape: Triple,
    dtype: Any,
) -> tuple[Shaped[Array, "c i j k"], Float32[Array, "c x y z"]]:
    """A slab's averages in a part of `shape` at `corner` (y z), and zeros in its place.

    Channel by channel: XLA makes a/b of many a into a x (1/b), which rounds otherwise.
    """
    (weights,) = jax.lax.dynamic_slice(total, (0, 0, *corner), (1, *shape))
    means = []
    for channel in range(values.shape[0]):
        at = (channel, 0, *corner)
        mean = jax.lax.dynamic_slice(values, at, (1, *shape))[0] / weights
        if dtype == np.uint8:
            mean = jnp.rint(mean * 255)
        means.append(mean.astype(dtype))
    return jnp.stack(means), jnp.zeros_like(values)
