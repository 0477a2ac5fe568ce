"""The pointwise part of a block on a GPU: products, norm, GELU and residual in one pass.

Source: `nnunet_mednext` blocks (arXiv:2303.09975): norm, 1x1 convolution, GELU, 1x1
convolution. We differ in that hidden values never leave a program (Pallas, Triton): a tile
of voxels goes through the hidden channels some at a time. Products take the data's type and
add up in float32; there are no atomics, partial sums are added up in a fixed order.

The norm is folded into the first weights, see `nisbjax.models.blocks.folded`; voxels are
centred where they are read.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Float32

from nisbjax.models.kernels import gelu
from nisbjax.models.kernels.call import call


class Tile(NamedTuple):
    """What one program owns, `voxels` and `hidden` powers of two.

    Attributes:
      voxels: of one sample at a time.
      hidden: channels at a time, a divisor of all of them.
      warps: of 32 threads.
      stages: of the pipeline that fetches weights.
      groups: tiles of voxels that one program of `weight_gradients` adds up.
      parts: times `hidden` channels that such a program owns.
    """

    voxels: int
    hidden: int
    warps: int
    stages: int
    groups: int = 1
    parts: int = 1


class Weights(NamedTuple):
    """Of the pointwise part, the norm folded into the first two.

    Attributes:
      mean: [b c] of the voxels' type, subtracted from every one of them.
      weight2: [b c r].
      bias2: [b r] float32.
      weight3: [r o].
      bias3: [o] float32.
    """

    mean: Array
    weight2: Array
    bias2: Array
    weight3: Array
    bias3: Array


def _width(channels: int) -> int:
    """Lanes of a matrix: the next power of two."""
    return 1 << (channels - 1).bit_length()


def _iota(count: int, axis: int) -> Array:
    shape = (count, 1) if axis == 0 else (1, count)
    return lax.broadcasted_iota(jnp.int32, shape, axis)


def _read(ref, lead: tuple, rows, columns) -> Array:
    """A matrix of a reference, zero outside."""
    height, width = ref.shape[-2:]
    shape = jnp.broadcast_shapes(rows.shape, columns.shape)
    there = jnp.broadcast_to((rows < height) & (columns < width), shape)
    return plt.load(ref.at[(*lead, rows, columns)], mask=there, other=0.0)


def _row(ref, lead: tuple, columns) -> Array:
    """One row of a reference, [1 n] float32, zero outside."""
    there = columns < ref.shape[-1]
    values = plt.load(ref.at[(*lead, columns)], mask=there, other=0.0)
    return values.astype(jnp.float32)


def _write(ref, lead: tuple, rows, columns, values) -> None:
    height, width = ref.shape[-2:]
    there = jnp.broadcast_to((rows < height) & (columns < width), values.shape)
    plt.store(ref.at[(*lead, rows, columns)], values.astype(ref.dtype), mask=there)


def _product(a, b, **transposed) -> Array:
    """In float32; of float32 values without the GPU's short form of them."""
    exact = a.dtype == jnp.float32
    precision = lax.Precision.HIGHEST if exact else None
    return plt.dot(a, b, precision=precision, **transposed).astype(jnp.float32)


def mix(
    y: Float[Array, "b n c"],
    weights: Weights,
    residual: Float[Array, "b n o"] | None = None,
    *,
    tile: Tile,
) -> Float[Array, "b n o"]:
    """gelu((y - mean) @ weight2 + bias2) @ weight3 + bias3, plus a residual; y's type."""
    b, n, c = y.shape
    hidden, outputs = weights.weight3.shape
    half = y.dtype != jnp.float32

    def body(y_ref, mean_ref, w2_ref, b2_ref, w3_ref, b3_ref, *others, on_gpu):
        sample = pl.program_id(1)
        rows = pl.program_id(0) * tile.voxels + _iota(tile.voxels, 0)
        inputs, out = _iota(_width(c), 1), _iota(_width(outputs), 1)
        values = _read(y_ref, (sample,), rows, inputs)
        values = values - _row(mean_ref, (sample,), inputs).astype(values.dtype)
        down = _iota(_width(c), 0)

        def some(i, total):
            first = i * tile.hidden
            here = first + _iota(tile.hidden, 1)
            weight = _read(w2_ref, (sample,), down, here)
            h = _product(values, weight) + _row(b2_ref, (sample,), here)
            active = gelu.parts(h, half=half, on_gpu=on_gpu)[0].astype(values.dtype)
            weight = _read(w3_ref, (), first + _iota(tile.hidden, 0), out)
            return total + _product(active, weight)

        total = jnp.zeros((tile.voxels, _width(outputs)), jnp.float32)
        total = lax.fori_loop(0, hidden // tile.hidden, some, total)
        total = total + _row(b3_ref, (), out)
        if residual is not None:
            total = total + _read(others[0], (sample,), rows, out).astype(jnp.float32)
        _write(others[-1], (sample,), rows, out, total)

    given = [y, *weights] + ([residual] if residual is not None else [])
    shape = jax.ShapeDtypeStruct((b, n, outputs), y.dtype)
    grid = (-(-n // tile.voxels), b)
    return call(body, grid, [shape], tile.warps, "mix", tile.stages)(*given)[0]


def input_gradient(
    y: Float[Array, "b n c"],
    g: Float[Array, "b n o"],
    weights: Weights,
    by_moments: tuple[Float32[Array, "b c"], Float32[Array, "b c"]],
    *,
    tile: Tile,
) -> Float[Array, "b n c"]:
    """The gradient of `mix` by y, and that of the moments which it was normed by.

    Args:
      y: as in `mix`.
      g: gradient by its result.
      weights: as in `mix`.
      by_moments: (u, v): u + v (y - mean) is added.
      tile: of one program.
    """
    b, n, c = y.shape
    hidden, outputs = weights.weight3.shape
    half = y.dtype != jnp.float32

    def body(
        y_ref, g_ref, mean_ref, w2_ref, b2_ref, w3_ref, u_ref, v_ref, out_ref, on_gpu
    ):
        sample = pl.program_id(1)
        rows = pl.program_id(0) * tile.voxels + _iota(tile.voxels, 0)
        inputs, out = _iota(_width(c), 1), _iota(_width(outputs), 1)
        mean = _row(mean_ref, (sample,), inputs)
        values = _read(y_ref, (sample,), rows, inputs) - mean.astype(y_ref.dtype)
        g = _read(g_ref, (sample,), rows, out)
        down = _iota(_width(c), 0)

        def some(i, total):
            first = i * tile.hidden
            here = first + _iota(tile.hidden, 1)
            weight2 = _read(w2_ref, (sample,), down, here)
            weight3 = _read(w3_ref, (), first + _iota(tile.hidden, 0), out)
            h = _product(values, weight2) + _row(b2_ref, (sample,), here)
            slope = gelu.parts(h, half=half, on_gpu=on_gpu)[1]
            by_hidden = _product(g, weight3, trans_b=True) * slope
            return total + _product(by_hidden.astype(g.dtype), weight2, trans_b=True)

        total = jnp.zeros((tile.voxels, _width(c)), jnp.float32)
        total = lax.fori_loop(0, hidden // tile.hidden, some, total)
        again = _read(y_ref, (sample,), rows, inputs).astype(jnp.float32) - mean
        total = total + _row(u_ref, (sample,), inputs)
        total = total + _row(v_ref, (sample,), inputs) * again
        _write(out_ref, (sample,), rows, inputs, total)

    given = (y, g, *weights[:4], *by_moments)
    shape = jax.ShapeDtypeStruct(y.shape, y.dtype)
    grid = (-(-n // tile.voxels), b)
    name = "mix_input_gradient"
    return call(body, grid, [shape], tile.warps, name, tile.stages)(*given)[0]


def weight_gradients(
    y: Float[Array, "b n c"],
    g: Float[Array, "b n o"],
    weights: Weights,
    *,
    tile: Tile,
) -> tuple[Array, Array, Array, Array]:
    """Gradients of `mix` by its weights, float32: [b c r], [b r], [r o], [o].

    A program owns some hidden channels and `tile.groups` tiles of voxels.
    """
    b, n, c = y.shape
    hidden, outputs = weights.weight3.shape
    half = y.dtype != jnp.float32
    groups = max(1, min(tile.groups, -(-n // tile.voxels)))
    programs = -(-n // (tile.voxels * groups))

    def body(y_ref, g_ref, mean_ref, w2_ref, b2_ref, w3_ref, *outs, on_gpu):
        sample, program = pl.program_id(2), pl.program_id(1)
        first = pl.program_id(0) * (tile.hidden * tile.parts)
        starts = [first + part * tile.hidden for part in range(tile.parts)]
        inputs, out = _iota(_width(c), 1), _iota(_width(outputs), 1)
        down, across, below = (
            _iota(_width(c), 0),
            _iota(tile.hidden, 1),
            _iota(tile.hidden, 0),
        )
        mean = _row(mean_ref, (sample,), inputs)
        ones = jnp.ones((16, tile.voxels), y.dtype)  # a product's fewest rows

        def some(i, sums):
            rows = (program * groups + i) * tile.voxels + _iota(tile.voxels, 0)
            values = _read(y_ref, (sample,), rows, inputs) - mean.astype(y_ref.dtype)
            g = _read(g_ref, (sample,), rows, out)
            new = []
            for start, (by2, by_bias2, by3) in zip(starts, sums[0]):
                weight2 = _read(w2_ref, (sample,), down, start + across)
                weight3 = _read(w3_ref, (), start + below, out)
                h = _product(values, weight2) + _row(b2_ref, (sample,), start + across)
                active, slope = gelu.parts(h, half=half, on_gpu=on_gpu)
                by_hidden = _product(g, weight3, trans_b=True) * slope
                active, by_hidden = active.astype(g.dtype), by_hidden.astype(g.dtype)
                by2 = by2 + _product(values, by_hidden, trans_a=True)
                by_bias2 = by_bias2 + _product(ones, by_hidden)
                new.append((by2, by_bias2, by3 + _product(active, g, trans_a=True)))
            return tuple(new), sums[1] + _product(ones, g)

        def zeros(*shape):
            return jnp.zeros(shape, jnp.float32)

        part = (
            zeros(_width(c), tile.hidden),
            zeros(16, tile.hidden),
            zeros(tile.hidden, _width(outputs)),
        )
        none = ((part,) * tile.parts, zeros(16, _width(outputs)))
        sums, by_bias3 = lax.fori_loop(0, groups, some, none)
        lead, top = (sample, program), _iota(16, 0)
        for start, (by2, by_bias2, by3) in zip(starts, sums):
            _write(outs[0], lead, down, start + across, by2)
            _write(outs[1], lead, top, start + across, by_bias2)
            _write(outs[2], lead, start + below, out, by3)
        top = top + 16 * jnp.minimum(pl.program_id(0), 1)  # the first program writes
        _write(outs[3], lead, top, out, by_bias3)

    shapes = [(c, hidden), (1, hidden), (hidden, outputs), (1, outputs)]
    outs = [jax.ShapeDtypeStruct((b, programs, *s), jnp.float32) for s in shapes]
    grid = (hidden // (tile.hidden * tile.parts), programs, b)
    name = "mix_weight_gradients"
    parts = call(body, grid, outs, tile.warps, name, tile.stages)(y, g, *weights[:4])
    by2, by_bias2, by3, by_bias3 = (part.sum(1) for part in parts)
    return by2, by_bias2[:, 0], by3.sum(0), by_bias3.sum((0, 1))
