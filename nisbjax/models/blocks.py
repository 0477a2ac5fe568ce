"""The MedNeXt block: depthwise convolution, channel norm, GELU between two matmuls.

Source: MedNeXt (arXiv:2303.09975), `nnunet_mednext` blocks. We differ in the order of
work, not in the function: the norm is an affine map per channel, so it is folded into
the first 1x1 convolution and costs no pass of its own; the pointwise part runs in tiles
that fit a CPU's cache and keeps nothing for its gradient but its input. The bias of the
depthwise convolution is kept under its name but never added: the norm subtracts it.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from nisbjax.models.depthwise import (
    clear_low_planes,
    depthwise,
    depthwise_transposed,
    interleave,
)
from nisbjax.typing import Triple

Parameters = dict[str, Any]

EPSILON = 1e-5
TILE_VALUES = 1 << 18  # hidden values of one tile, 1 MB in float32: within a core's L2


def pointwise(
    x: Float[Array, "b x y z c"], parameters: Parameters
) -> Float[Array, "b x y z o"]:
    """A 1x1 convolution: one matmul over the channels."""
    weight, bias = parameters["weight"], parameters["bias"]
    return jnp.matmul(x, weight.astype(x.dtype)) + bias.astype(x.dtype).reshape(
        1, 1, 1, 1, -1
    )


def block(
    x: Float[Array, "b x y z c"], parameters: Parameters
) -> Float[Array, "b x y z c"]:
    """x + conv3(gelu(conv2(norm(conv1(x)))))."""
    y = depthwise(x, parameters["conv1"]["weight"], (1, 1, 1))
    return x + _normed_mlp(y, y, parameters)


def down_block(
    x: Float[Array, "b x y z c"], parameters: Parameters, strides: Triple
) -> Float[Array, "b u v w d"]:
    """Halves the resolution and doubles the channels; the residual is 1x1, strided."""
    y = depthwise(x, parameters["conv1"]["weight"], strides)
    sx, sy, sz = strides
    residual = pointwise(x[:, ::sx, ::sy, ::sz], parameters["res_conv"])
    return residual + _normed_mlp(y, y, parameters)


def up_block(
    x: Float[Array, "b x y z c"], parameters: Parameters, strides: Triple
) -> Float[Array, "b u v w d"]:
    """Doubles the resolution and halves the channels; the low planes are zero.

    The residual, a transposed 1x1 convolution, reaches one position in
    `prod(strides)`; the others get its bias alone.
    """
    y = depthwise_transposed(x, parameters["conv1"]["weight"], strides)
    sx, sy, sz = strides
    counted = y[:, sx - 1 :, sy - 1 :, sz - 1 :]
    weight, bias = parameters["res_conv"]["weight"], parameters["res_conv"]["bias"]
    reached = jnp.matmul(x, weight.astype(x.dtype))
    empty = [jnp.zeros_like(reached)] * (math.prod(strides) - 1)
    residual = interleave([*empty, reached], strides)
    residual = residual + bias.astype(x.dtype).reshape(1, 1, 1, 1, -1)
    return clear_low_planes(residual + _normed_mlp(y, counted, parameters), strides)


def _normed_mlp(y, counted, parameters):
    """conv3(gelu(conv2(norm(y)))), with the statistics of `counted`, a part of y."""
    b, *space, c = y.shape
    mean, variance = moments(counted)
    norm, conv2, conv3 = (parameters[name] for name in ("norm", "conv2", "conv3"))
    scale = lax.rsqrt(variance + EPSILON) * norm["weight"].reshape(1, -1)
    if y.dtype != jnp.float32:
        # Rounded to bf16, a folded mean would be lost in the rounding of the weights.
        y = (y.astype(jnp.float32) - mean.reshape(b, 1, 1, 1, c)).astype(y.dtype)
        mean = jnp.zeros_like(mean)
    shift = norm["bias"].reshape(1, -1) - mean * scale
    weight = scale[:, :, None] * conv2["weight"][None]
    bias = shift @ conv2["weight"] + conv2["bias"].reshape(1, -1)
    z = mlp(
        y.reshape(b, math.prod(space), c),
        weight.astype(y.dtype),
        bias.astype(y.dtype),
        conv3["weight"].astype(y.dtype),
        conv3["bias"].astype(y.dtype),
    )
    return z.reshape(b, *space, -1)


@jax.custom_vjp
def moments(
    y: Float[Array, "b x y z c"],
) -> tuple[Float32[Array, "b c"], Float32[Array, "b c"]]:
    """Mean and biased variance over space, in float32."""
    y = y.astype(jnp.float32)
    b, *space, c = y.shape
    count = math.prod(space)
    mean = y.sum(3).sum((1, 2)) / count
    centred = y - mean.reshape(b, 1, 1, 1, c)
    return mean, (centred * centred).sum(3).sum((1, 2)) / count


def _moments_forward(y):
    mean, variance = moments(y)
    return (mean, variance), (y, mean)


def _moments_backward(residuals, gradients):
    y, mean = residuals
    b, *space, c = y.shape
    by_mean, by_variance = (g.reshape(b, 1, 1, 1, c) for g in gradients)
    centred = y.astype(jnp.float32) - mean.reshape(b, 1, 1, 1, c)
    g = (by_mean + 2 * by_variance * centred) / math.prod(space)
    return (g.astype(y.dtype),)


moments.defvjp(_moments_forward, _moments_backward)


def _gelu(x):
    """Exact GELU: x times the normal distribution function (not the tanh form)."""
    return jax.nn.gelu(x, approximate=False)


@jax.custom_vjp
def mlp(
    y: Float[Array, "b n c"],
    weight2: Float[Array, "b c r"],
    bias2: Float[Array, "b r"],
    weight3: Float[Array, "r o"],
    bias3: Float[Array, "o"],
) -> Float[Array, "b n o"]:
    """gelu(y @ weight2 + bias2) @ weight3 + bias3; the hidden values are never kept."""
    return lax.platform_dependent(
        y, weight2, bias2, weight3, bias3, cpu=_mlp_tiled, default=_mlp_forward
    )


def _hidden(y, weight2, bias2):
    return jnp.matmul(y, weight2) + bias2[:, None]


def _mlp_forward(y, weight2, bias2, weight3, bias3):
    hidden = _gelu(_hidden(y, weight2, bias2))
    return jnp.matmul(hidden, weight3) + bias3.reshape(1, 1, -1)


def _tiles(y, hidden: int) -> int:
    """Number of tiles of the n axis: a divisor of it."""
    b, n, _ = y.shape
    tiles = max(1, b * n * hidden // TILE_VALUES)
    while n % tiles:
        tiles -= 1
    return tiles


def _tile(y, index, size):
    return lax.dynamic_slice_in_dim(y, index * size, size, axis=1)


def _join(tiles):
    t, b, size, c = tiles.shape
    return tiles.transpose(1, 0, 2, 3).reshape(b, t * size, c)


def _mlp_tiled(y, weight2, bias2, weight3, bias3):
    tiles = _tiles(y, weight2.shape[-1])
    if tiles == 1:
        return _mlp_forward(y, weight2, bias2, weight3, bias3)
    size = y.shape[1] // tiles

    def one(_, index):
        return None, _mlp_forward(_tile(y, index, size), weight2, bias2, weight3, bias3)

    return _join(lax.scan(one, None, jnp.arange(tiles))[1])


def _mlp_gradients(y, weight2, bias2, weight3, g):
    """Gradients of one tile, (y's, those of the weights in float32)."""
    hidden, pull = jax.vjp(_gelu, _hidden(y, weight2, bias2))
    (by_hidden,) = pull(jnp.matmul(g, weight3.T))
    summed = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    return jnp.matmul(by_hidden, weight2.swapaxes(1, 2)), (
        summed("bnc,bnr->bcr", y, by_hidden),
        by_hidden.astype(jnp.float32).sum(1),
        summed("bnr,bno->ro", hidden, g),
        g.astype(jnp.float32).sum((0, 1)),
    )


def _mlp_gradients_tiled(y, weight2, bias2, weight3, g):
    tiles = _tiles(y, weight2.shape[-1])
    if tiles == 1:
        return _mlp_gradients(y, weight2, bias2, weight3, g)
    size = y.shape[1] // tiles

    def one(sums, index):
        by_y, added = _mlp_gradients(
            _tile(y, index, size), weight2, bias2, weight3, _tile(g, index, size)
        )
        return jax.tree.map(jnp.add, sums, added), by_y

    zeros = jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, jnp.float32),
        (weight2, bias2, weight3, g[0, 0]),
    )
    sums, by_y = lax.scan(one, zeros, jnp.arange(tiles))
    return _join(by_y), sums


def _mlp_keep(y, weight2, bias2, weight3, bias3):
    return mlp(y, weight2, bias2, weight3, bias3), (y, weight2, bias2, weight3, bias3)


def _mlp_backward(residuals, g):
    y, weight2, bias2, weight3, bias3 = residuals
    by_y, sums = lax.platform_dependent(
        y,
        weight2,
        bias2,
        weight3,
        g,
        cpu=_mlp_gradients_tiled,
        default=_mlp_gradients,
    )
    kinds = (weight2, bias2, weight3, bias3)
    return by_y, *(total.astype(kind.dtype) for total, kind in zip(sums, kinds))


mlp.defvjp(_mlp_keep, _mlp_backward)
