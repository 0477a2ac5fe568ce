"""Depthwise 3-D convolution on a GPU: Pallas kernels (Triton) that march along x.

Source: the depthwise layers of MedNeXt (arXiv:2303.09975). We differ from a library's
grouped convolution in what is read: a program owns a tile of y-z and a block of channels,
reads each input plane once and adds it to the outputs that it reaches, which roll through
registers. Sums are float32; there are no atomics, and partial sums are added up in a fixed
order, so that results are a function of the input and the tile alone.

A tile's last axis holds neighbouring channels of one thread (`vector`), the one before it
the groups of them, so that a thread's few kernel weights stay in its registers.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Float32

from nisbjax.models.depthwise import phase_links
from nisbjax.models.kernels.call import call
from nisbjax.typing import Triple

# Kernel weights that a thread holds; more would leave it no registers for sums.
HELD = 108


class Tile(NamedTuple):
    """What one program owns, all but `planes` powers of two.

    Attributes:
      rows: along y.
      columns: along z.
      channels: a divisor of the array's.
      vector: neighbouring channels of a thread, a divisor of `channels`.
      planes: along x.
      warps: of 32 threads.
    """

    rows: int
    columns: int
    channels: int
    vector: int
    planes: int
    warps: int


class _Place(NamedTuple):
    """Where a program is, and the y, z and channel of each of its lanes.

    Attributes:
      sample: of the batch.
      x0: first plane.
      x1: behind the last one.
      y0: first row.
      z0: first column.
      row: among the programs of a sample and a block of channels.
      y: of each lane, as the next two.
      z: see y.
      c: see y.
      inside: whether a lane is one of the array's voxels.
      voxels: how many of them this program owns.
    """

    sample: Array
    x0: Array
    x1: Array
    y0: Array
    z0: Array
    row: Array
    y: Array
    z: Array
    c: Array
    inside: Array
    voxels: Array


def _blocks(shape, tile: Tile) -> tuple[int, int, int, int]:
    """Blocks of x, y, z and channels."""
    _, x, y, z, c = shape
    planes = min(tile.planes, x)
    return (
        -(-x // planes),
        -(-y // tile.rows),
        -(-z // tile.columns),
        c // tile.channels,
    )


def _grid(shape, tile: Tile) -> tuple[int, int, int]:
    x, y, z, c = _blocks(shape, tile)
    return y * z * c, x, shape[0]


def programs(shape: tuple[int, ...], tile: Tile) -> int:
    """Programs that go over an array [b x y z c]."""
    return math.prod(_grid(shape, tile))


def _lanes(tile: Tile) -> tuple[int, int, int, int]:
    # Triton spreads threads over the last axis, then the first: neighbouring channels.
    return tile.channels // tile.vector, tile.columns, tile.rows, tile.vector


def _place(shape, tile: Tile, i=None) -> _Place:
    _, nx, ny, nz, _ = shape
    _, rows, columns, blocks = _blocks(shape, tile)
    planes = min(tile.planes, nx)
    i, j = pl.program_id(0) if i is None else i, pl.program_id(1)
    column = i // blocks
    x0 = j * planes
    y0, z0 = column // columns * tile.rows, column % columns * tile.columns
    x1 = jnp.minimum(nx, x0 + planes)
    high = jnp.minimum(ny - y0, tile.rows) * jnp.minimum(nz - z0, tile.columns)
    iota = functools.partial(lax.broadcasted_iota, jnp.int32)
    y = y0 + iota((1, 1, tile.rows, 1), 2)
    z = z0 + iota((1, tile.columns, 1, 1), 1)
    channels = (tile.channels // tile.vector, 1, 1, tile.vector)
    c = (i % blocks) * tile.channels
    c += iota(channels, 0) * tile.vector + iota(channels, 3)
    return _Place(
        pl.program_id(2),
        x0,
        x1,
        y0,
        z0,
        j * (rows * columns) + column,
        y,
        z,
        c,
        (y < ny) & (z < nz),
        high * (x1 - x0),
    )


def _read(ref, place: _Place, x, y, z, also: Array | bool = True):
    """The lanes' channels at (x, y, z) as float32; zero outside the array."""
    _, nx, ny, nz, _ = ref.shape
    there = (x >= 0) & (x < nx) & also
    there = there & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
    there = jnp.broadcast_to(
        there, jnp.broadcast_shapes(y.shape, z.shape, place.c.shape)
    )
    values = plt.load(ref.at[place.sample, x, y, z, place.c], mask=there, other=0.0)
    return values.astype(jnp.float32)


def _weights(ref, place: _Place, kernel, vector: int):
    """(tap) -> weights of the program's channels: read once, if a thread can hold them."""

    def read(tap: int):
        return plt.load(ref.at[tap, place.c])

    taps = math.prod(kernel)
    if taps * vector > HELD:
        return read
    return [read(tap) for tap in range(taps)].__getitem__


def convolve(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    residual: Float[Array, "b x y z c"] | None = None,
    *,
    moments: bool = False,
    tile: Tile,
) -> tuple[Array, Array | None]:
    """Sum over taps of weight[t] * x[o + t - k // 2], zero outside, plus a residual.

    Args:
      x: values.
      weight: of an odd size in each axis.
      residual: added before the result is rounded.
      moments: also mean and squares of the rounded result, see `combined`.
      tile: of one program.

    Returns:
      The result, with x's type, and [b p 2 c] float32: of each of p programs the mean of
      its part and the sum of squared distances from it; None without `moments`.
    """
    shape, kernel = x.shape, weight.shape[:3]
    half = [k // 2 for k in kernel]
    taps = list(itertools.product(range(kernel[1]), range(kernel[2])))

    def body(*refs, on_gpu):
        del on_gpu
        x_ref, w_ref, *others = refs
        residual_ref = others.pop(0) if residual is not None else None
        place = _place(shape, tile)
        weight_of = _weights(w_ref, place, kernel, tile.vector)
        lanes = _lanes(tile)
        zero = jnp.zeros(lanes, jnp.float32)

        def plane(i, carry):
            sums, (pivot, total, squares) = list(carry[0]), carry[1]
            xi = place.x0 - half[0] + i
            sums.append(zero)  # of the newest output plane, xi + half
            for t, (j, k) in enumerate(taps):
                y, z = place.y + (j - half[1]), place.z + (k - half[2])
                values = _read(x_ref, place, xi, y, z)
                for d in range(kernel[0]):  # the oldest output takes the last tap
                    tap = (kernel[0] - 1 - d) * len(taps) + t
                    sums[d] = sums[d] + weight_of(tap) * values
            out = xi - half[0]
            put = place.inside & (out >= place.x0) & (out < place.x1)
            put = jnp.broadcast_to(put, lanes)
            done = sums.pop(0)
            index = (place.sample, out, place.y, place.z, place.c)
            if residual_ref is not None:
                done = done + plt.load(
                    residual_ref.at[index], mask=put, other=0.0
                ).astype(jnp.float32)
            rounded = done.astype(x.dtype)
            plt.store(others[0].at[index], rounded, mask=put)
            if moments:  # each lane's distances from its own first value
                value = rounded.astype(jnp.float32)
                pivot = jnp.where(out == place.x0, value, pivot)
                distance = jnp.where(put, value - pivot, 0.0)
                total, squares = total + distance, squares + distance * distance
            return tuple(sums), (pivot, total, squares)

        none = zero if moments else jnp.float32(0)
        first = tuple(zero for _ in range(kernel[0] - 1))
        steps = min(tile.planes, shape[1]) + kernel[0] - 1
        _, sums = lax.fori_loop(0, steps, plane, (first, (none,) * 3))
        if moments:
            _write_moments(others[1], place, *sums)

    grid = _grid(shape, tile)
    shapes = [jax.ShapeDtypeStruct(shape, x.dtype)]
    if moments:
        programs = math.prod(_blocks(shape, tile)[:3])
        shapes.append(
            jax.ShapeDtypeStruct((shape[0], programs, 2, shape[-1]), jnp.float32)
        )
    given = [x, weight.reshape(-1, shape[-1]).astype(jnp.float32)]
    given += [residual] if residual is not None else []
    name = "convolve" + "_moments" * moments + "_residual" * (residual is not None)
    out = call(body, grid, shapes, tile.warps, name)(*given)
    return (out[0], out[1]) if moments else (out[0], None)


def _write_moments(ref, place, pivot, total, squares):
    """Mean of a program's voxels, and their squared distances from it, added up.

    Args:
      ref: of `convolve`'s second result.
      place: of the program.
      pivot: a value of each lane, near its others wherever their mean is.
      total: of each lane's distances from its pivot.
      squares: of these distances, added up.
    """

    def whole(lanes):
        lanes = jnp.where(place.inside, lanes, 0.0)
        return lanes.sum(2, keepdims=True).sum(1, keepdims=True)

    planes = (place.x1 - place.x0).astype(jnp.float32)
    off = total / planes
    means = pivot + off
    mean = whole(means) * (planes / place.voxels.astype(jnp.float32))
    distance = means - mean
    spread = whole(squares - total * off + planes * distance * distance)
    index = (place.sample, place.row)
    shape = place.c.shape
    plt.store(ref.at[(*index, 0, place.c)], mean.reshape(shape))
    plt.store(ref.at[(*index, 1, place.c)], spread.reshape(shape))


def combined(
    parts: Float32[Array, "b p 2 c"], shape: tuple[int, ...], tile: Tile
) -> tuple[Float32[Array, "b c"], Float32[Array, "b c"]]:
    """Mean and variance of a whole array from those of the programs of `convolve`.

    Squares of n voxels with mean m add up to those of their parts, plus n (m - mean)^2 for
    each: sums of two levels lose less than one long sum, and nothing to a large mean.
    """
    counts = np.ones(_blocks(shape, tile)[:3])
    for axis, (size, step) in enumerate(
        zip(shape[1:4], (min(tile.planes, shape[1]), tile.rows, tile.columns))
    ):
        starts = np.arange(counts.shape[axis]) * step
        along = np.minimum(size - starts, step)
        counts *= along.reshape([-1 if i == axis else 1 for i in range(3)])
    share = jnp.asarray(counts.reshape(1, -1, 1) / counts.sum(), jnp.float32)
    means, squares = parts[:, :, 0], parts[:, :, 1]
    mean = (means * share).sum(1)
    between = ((means - mean[:, None]) ** 2 * share).sum(1)
    return mean, squares.sum(1) / counts.sum() + between


def gather(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    low: Triple,
    *,
    tile: Tile,
) -> Float[Array, "b u v w c"]:
    """`nisbjax.models.depthwise.gather`: every output reads all of its taps."""
    kernel = weight.shape[:3]
    b, *size, c = x.shape
    shape = (b, *(n // s for n, s in zip(size, strides)), c)

    def body(x_ref, w_ref, out_ref, on_gpu):
        del on_gpu
        place = _place(shape, tile)
        weight_of = _weights(w_ref, place, kernel, tile.vector)

        def plane(i, _):
            xo = place.x0 + i
            total = jnp.zeros(_lanes(tile), jnp.float32)
            for t, tap in enumerate(itertools.product(*map(range, kernel))):
                at = (
                    s * o + n - before
                    for s, o, n, before in zip(
                        strides, (xo, place.y, place.z), tap, low
                    )
                )
                total = total + weight_of(t) * _read(x_ref, place, *at)
            there = jnp.broadcast_to(place.inside & (xo < place.x1), total.shape)
            to = out_ref.at[place.sample, xo, place.y, place.z, place.c]
            plt.store(to, total.astype(x.dtype), mask=there)
            return 0

        lax.fori_loop(0, min(tile.planes, shape[1]), plane, 0)

    out = jax.ShapeDtypeStruct(shape, x.dtype)
    weight = weight.reshape(-1, c).astype(jnp.float32)
    return call(body, _grid(shape, tile), [out], tile.warps, "gather")(x, weight)[0]


def scatter(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    low: Triple,
    *,
    tile: Tile,
) -> Float[Array, "b u v w c"]:
    """`nisbjax.models.depthwise.scatter`: a program writes all phases of its tile."""
    kernel = weight.shape[:3]
    b, *size, c = x.shape
    links = [phase_links(*axis) for axis in zip(kernel, strides, low)]
    reach = [sorted({d for phase in axis for _, d in phase}) for axis in links]

    def body(x_ref, w_ref, out_ref, on_gpu):
        del on_gpu
        place = _place(x.shape, tile)
        weight_of = _weights(w_ref, place, kernel, tile.vector)
        sx, sy, sz = strides

        def plane(i, _):
            xo = place.x0 + i
            near = {}
            for at in itertools.product(*reach):
                here = (xo + at[0], place.y + at[1], place.z + at[2])
                near[at] = _read(x_ref, place, *here)
            for phase in itertools.product(*map(range, strides)):
                total = jnp.zeros(_lanes(tile), jnp.float32)
                for link in itertools.product(*(a[f] for a, f in zip(links, phase))):
                    i, j, k = (t for t, _ in link)
                    tap = (i * kernel[1] + j) * kernel[2] + k
                    total = total + weight_of(tap) * near[tuple(d for _, d in link)]
                there = jnp.broadcast_to(place.inside & (xo < place.x1), total.shape)
                y, z = sy * place.y + phase[1], sz * place.z + phase[2]
                to = out_ref.at[place.sample, sx * xo + phase[0], y, z, place.c]
                plt.store(to, total.astype(x.dtype), mask=there)
            return 0

        lax.fori_loop(0, min(tile.planes, x.shape[1]), plane, 0)

    shape = (b, *(n * s for n, s in zip(size, strides)), c)
    out = jax.ShapeDtypeStruct(shape, x.dtype)
    weight = weight.reshape(-1, c).astype(jnp.float32)
    return call(body, _grid(x.shape, tile), [out], tile.warps, "scatter")(x, weight)[0]


def kernel_gradient(
    fine: Float[Array, "b x y z c"],
    coarse: Float[Array, "b u v w c"],
    kernel: Triple,
    strides: Triple,
    low: Triple,
    *,
    tile: Tile,
) -> Float32[Array, "i j k c"]:
    """Sum over coarse positions o of coarse[o] * fine[stride * o + tap - low].

    A program owns the taps of one (i, j) and reads both arrays for them.
    """
    shape = coarse.shape
    c = shape[-1]
    blocks = _blocks(shape, tile)
    lines = kernel[0] * kernel[1]

    def body(fine_ref, coarse_ref, out_ref, on_gpu):
        del on_gpu
        line = pl.program_id(0) % lines
        place = _place(shape, tile, pl.program_id(0) // lines)
        di, dj = line // kernel[1], line % kernel[1]

        def plane(i, sums):
            xo = place.x0 + i
            here = place.inside & (xo < place.x1)
            g = _read(coarse_ref, place, xo, place.y, place.z, here)
            x = strides[0] * xo + di - low[0]
            y = strides[1] * place.y + dj - low[1]
            new = []
            for k, total in enumerate(sums):
                z = strides[2] * place.z + (k - low[2])
                new.append(total + _read(fine_ref, place, x, y, z) * g)
            return tuple(new)

        zeros = (jnp.zeros(_lanes(tile), jnp.float32),) * kernel[2]
        sums = lax.fori_loop(0, min(tile.planes, shape[1]), plane, zeros)
        row = place.sample * math.prod(blocks[:3]) + place.row
        for k, total in enumerate(sums):
            _add_up(out_ref, place, row, line * kernel[2] + k, total)

    grid = _grid(shape, tile)
    rows = shape[0] * math.prod(blocks[:3])
    out = jax.ShapeDtypeStruct((rows, math.prod(kernel), c), jnp.float32)
    grid = (grid[0] * lines, *grid[1:])
    parts = call(body, grid, [out], tile.warps, "kernel_gradient")(fine, coarse)[0]
    return parts.sum(0).reshape(*kernel, c)


def _add_up(ref, place, row, tap, values):
    """A program's part of one tap's sum."""
    total = values.sum(2).sum(1).reshape(place.c.shape)
    plt.store(ref.at[(row, tap, place.c)], total)


def rolling_kernel_gradient(
    x: Float[Array, "b x y z c"],
    g: Float[Array, "b x y z c"],
    kernel: Triple,
    *,
    tile: Tile,
) -> Float32[Array, "i j k c"]:
    """`kernel_gradient` of stride 1 and a centred kernel: each plane of x is read once.

    It meets the planes of g that it reached, which roll through registers; the sums of
    all taps do not fit there for kernels of more than 27.
    """
    shape = x.shape
    c = shape[-1]
    half = [k // 2 for k in kernel]
    blocks = _blocks(shape, tile)
    plane_taps = list(itertools.product(range(kernel[1]), range(kernel[2])))

    def body(x_ref, g_ref, out_ref, on_gpu):
        del on_gpu
        place = _place(shape, tile)

        def plane(i, carry):
            planes, sums = list(carry[0]), list(carry[1])
            xi = place.x0 - half[0] + i
            newest = xi + half[0]
            here = place.inside & (newest >= place.x0) & (newest < place.x1)
            planes.append(_read(g_ref, place, newest, place.y, place.z, here))
            for t, (j, k) in enumerate(plane_taps):
                y, z = place.y + (j - half[1]), place.z + (k - half[2])
                values = _read(x_ref, place, xi, y, z)
                for d in range(kernel[0]):  # the newest plane meets the first tap
                    tap = d * len(plane_taps) + t
                    sums[tap] = sums[tap] + values * planes[kernel[0] - 1 - d]
            return tuple(planes[1:]), tuple(sums)

        zero = jnp.zeros(_lanes(tile), jnp.float32)
        first = ((zero,) * (kernel[0] - 1), (zero,) * math.prod(kernel))
        steps = min(tile.planes, shape[1]) + kernel[0] - 1
        sums = lax.fori_loop(0, steps, plane, first)[1]
        row = place.sample * math.prod(blocks[:3]) + place.row
        for tap, total in enumerate(sums):
            _add_up(out_ref, place, row, tap, total)

    rows = shape[0] * math.prod(blocks[:3])
    out = jax.ShapeDtypeStruct((rows, math.prod(kernel), c), jnp.float32)
    parts = call(body, _grid(shape, tile), [out], tile.warps, "rolling_gradient")(x, g)[
        0
    ]
    return parts.sum(0).reshape(*kernel, c)
