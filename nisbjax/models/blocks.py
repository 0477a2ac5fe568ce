"""The MedNeXt block: depthwise convolution, channel norm, GELU between two matmuls.

Source: MedNeXt (arXiv:2303.09975), `nnunet_mednext` blocks. We differ in the order of
work, not in the function: the norm is an affine map per channel, so it is folded into
the first 1x1 convolution and costs no pass of its own; the pointwise part runs in tiles
that fit a CPU's cache and keeps nothing for its gradient but its input. The bias of the
depthwise convolution is kept under its name but never added: the norm subtracts it.
"""

import functools
import math
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from nisbjax.models import halo
from nisbjax.models.depthwise import interleave
from nisbjax.models.recomputation import again
from nisbjax.typing import Triple

Parameters = dict[str, Any]

EPSILON = 1e-5
# Hidden values of one tile on a CPU: smaller ones lose more to starting their loops than
# the cache gives back, larger ones the cache of several cores.
TILE_VALUES = 1 << 20


def pointwise(
    x: Float[Array, "b x y z c"], parameters: Parameters
) -> Float[Array, "b x y z o"]:
    """A 1x1 convolution: one matmul over the channels."""
    weight, bias = parameters["weight"], parameters["bias"]
    return jnp.matmul(x, weight.astype(x.dtype)) + bias.astype(x.dtype).reshape(
        1, 1, 1, 1, -1
    )


def block(
    x: Float[Array, "b x y z c"],
    parameters: Parameters,
    space: halo.SplitAxis | None = None,
    remat: str | bool = "none",
) -> Float[Array, "b x y z c"]:
    """x + conv3(gelu(conv2(norm(conv1(x))))).

    Here as below, `space` is what splits x over devices, None where they have all of it;
    `remat`, of `recomputation`, decides on the expansion: on whole blocks their caller.
    """
    y = halo.convolved(x, parameters["conv1"]["weight"], (1, 1, 1), space)
    return x + _normed_mlp(y, _statistics(y, 0, space), parameters, remat)


def down_block(
    x: Float[Array, "b x y z c"],
    parameters: Parameters,
    strides: Triple,
    space: halo.SplitAxis | None = None,
    remat: str | bool = "none",
) -> Float[Array, "b u v w d"]:
    """Halves the resolution and doubles the channels; the residual is 1x1, strided."""
    y = halo.convolved(x, parameters["conv1"]["weight"], strides, space)
    sx, sy, sz = strides
    residual = pointwise(x[:, ::sx, ::sy, ::sz], parameters["res_conv"])
    return residual + _normed_mlp(y, _statistics(y, 0, space), parameters, remat)


def up_block(
    x: Float[Array, "b x y z c"],
    parameters: Parameters,
    strides: Triple,
    space: halo.SplitAxis | None = None,
    remat: str | bool = "none",
) -> Float[Array, "b u v w d"]:
    """Doubles the resolution and halves the channels; the low planes are zero.

    The residual, a transposed 1x1 convolution, reaches one position in
    `prod(strides)`; the others get its bias alone.
    """
    y = halo.convolved_transposed(x, parameters["conv1"]["weight"], strides, space)
    sx, sy, sz = strides
    statistics = _statistics(y[:, :, sy - 1 :, sz - 1 :], sx - 1, space)
    weight, bias = parameters["res_conv"]["weight"], parameters["res_conv"]["bias"]
    reached = jnp.matmul(x, weight.astype(x.dtype))
    empty = [jnp.zeros_like(reached)] * (math.prod(strides) - 1)
    residual = interleave(jnp.stack([*empty, reached]), strides)
    residual = residual + bias.astype(x.dtype).reshape(1, 1, 1, 1, -1)
    z = residual + _normed_mlp(y, statistics, parameters, remat)
    return halo.cleared(z, strides, space)


def _statistics(y, skipped, space):
    """Mean and variance without the crop's first planes."""
    if space is None:
        return moments(y[:, skipped:])
    return halo.moments(y, skipped, space)


def _normed_mlp(y, statistics, parameters, remat):
    """conv3(gelu(conv2(norm(y)))) with this mean and variance."""

    def expansion(y, statistics, parameters):
        b, *space, c = y.shape
        y, *weights = folded(y, statistics, parameters)
        return mlp(y.reshape(b, math.prod(space), c), *weights).reshape(b, *space, -1)

    return again("expansion", expansion, remat)(y, statistics, parameters)


def folded(
    y: Float[Array, "b x y z c"],
    statistics: tuple[Float32[Array, "b c"], Float32[Array, "b c"]],
    parameters: Parameters,
) -> tuple[Array, Array, Array, Array, Array]:
    """y (centred, unless it is float32) and the weights of an `mlp` that norms it."""
    mean, variance = statistics
    norm, conv2, conv3 = (parameters[name] for name in ("norm", "conv2", "conv3"))
    scale = lax.rsqrt(variance + EPSILON) * norm["weight"].reshape(1, -1)
    if y.dtype != jnp.float32:
        # Rounded to bf16, a folded mean would be lost in the rounding of the weights.
        centre = mean.reshape(y.shape[0], 1, 1, 1, -1)
        y = (y.astype(jnp.float32) - centre).astype(y.dtype)
        mean = jnp.zeros_like(mean)
    shift = norm["bias"].reshape(1, -1) - mean * scale
    weight = scale[:, :, None] * conv2["weight"][None]
    bias = jnp.matmul(shift, conv2["weight"], precision="highest")
    bias += conv2["bias"].reshape(1, -1)
    weights = (weight, bias, conv3["weight"], conv3["bias"])
    return y, *(w.astype(y.dtype) for w in weights)


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


def _normal_cdf(x):
    return 0.5 + 0.5 * lax.erf(x * math.sqrt(0.5))


def gelu(x):
    """Exact GELU, x times the normal distribution function (not its tanh form).

    `jax.nn.gelu` goes through erfc, which costs three times as much on a CPU.
    """
    return x * _normal_cdf(x)


def gelu_slope(x):
    """The derivative of `gelu`."""
    return _normal_cdf(x) + x * jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


@jax.custom_vjp
def mlp(
    y: Float[Array, "b n c"],
    weight2: Float[Array, "b c r"],
    bias2: Float[Array, "b r"],
    weight3: Float[Array, "r o"],
    bias3: Float[Array, " o"],
) -> Float[Array, "b n o"]:
    """gelu(y @ weight2 + bias2) @ weight3 + bias3; the hidden values are never kept."""
    return lax.platform_dependent(
        y,
        weight2,
        bias2,
        weight3,
        bias3,
        cpu=functools.partial(_mlp, tile_values=TILE_VALUES),
        default=functools.partial(_mlp, tile_values=None),
    )


def _mlp_keep(y, weight2, bias2, weight3, bias3):
    return mlp(y, weight2, bias2, weight3, bias3), (y, weight2, bias2, weight3, bias3)


def _mlp_backward(residuals, g):
    y, weight2, bias2, weight3, bias3 = residuals
    # Traced after its caller has left the context that forbids TF32.
    full = y.dtype == jnp.float32
    with jax.default_matmul_precision("float32") if full else nullcontext():
        by_y, sums = mlp_gradients(y, weight2, bias2, weight3, g)
    kinds = (weight2, bias2, weight3, bias3)
    return by_y, *(total.astype(kind.dtype) for total, kind in zip(sums, kinds))


mlp.defvjp(_mlp_keep, _mlp_backward)


def mlp_gradients(
    y: Float[Array, "b n c"],
    weight2: Float[Array, "b c r"],
    bias2: Float[Array, "b r"],
    weight3: Float[Array, "r o"],
    g: Float[Array, "b n o"],
) -> tuple[Array, tuple[Array, ...]]:
    """Gradients of `mlp` by y, and by the other four summed in float32."""
    return lax.platform_dependent(
        y,
        weight2,
        bias2,
        weight3,
        g,
        cpu=functools.partial(_mlp_gradients, tile_values=TILE_VALUES),
        default=functools.partial(_mlp_gradients, tile_values=None),
    )


def _tiles(n: int, hidden: int, tile_values: int | None) -> int:
    """Tiles of one sample's n voxels: a divisor of n."""
    tiles = 1 if tile_values is None else max(1, n * hidden // tile_values)
    while n % tiles:
        tiles -= 1
    return tiles


def _mlp(y, weight2, bias2, weight3, bias3, *, tile_values):
    b, n, c = y.shape
    tiles = _tiles(n, weight2.shape[-1], tile_values)

    def tile(y, sample):
        # Plain matrices: with a batch axis XLA:CPU transposes around every product.
        hidden = jnp.matmul(y, weight2[sample]) + bias2[sample][None]
        return jnp.matmul(gelu(hidden), weight3) + bias3[None]

    if b * tiles == 1:
        return tile(y[0], 0)[None]
    z = lax.map(
        lambda xs: tile(*xs),
        (y.reshape(b * tiles, n // tiles, c), jnp.arange(b * tiles) // tiles),
    )
    return z.reshape(b, n, -1)


def _mlp_gradients(y, weight2, bias2, weight3, g, *, tile_values):
    b, n, c = y.shape
    tiles = _tiles(n, weight2.shape[-1], tile_values)
    summed = functools.partial(
        lax.dot_general,
        dimension_numbers=(((0,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
    )

    def tile(y, g, sample):
        hidden = jnp.matmul(y, weight2[sample]) + bias2[sample][None]
        by_hidden = jnp.matmul(g, weight3.T) * gelu_slope(hidden)
        # Without the barrier XLA:CPU fuses the GELU into the products' transposition
        # and loses its vectors.
        active, by_hidden = lax.optimization_barrier((gelu(hidden), by_hidden))
        return jnp.matmul(by_hidden, weight2[sample].T), (
            summed(y, by_hidden),
            by_hidden.astype(jnp.float32).sum(0),
            summed(active, g),
            g.astype(jnp.float32).sum(0),
        )

    def step(sums, xs):
        y, g, sample = xs
        by_y, (by_weight2, by_bias2, by_weight3, by_bias3) = tile(y, g, sample)
        added = (
            sums[0].at[sample].add(by_weight2),
            sums[1].at[sample].add(by_bias2),
            sums[2] + by_weight3,
            sums[3] + by_bias3,
        )
        return added, by_y

    if b * tiles == 1:
        by_y, (by_weight2, by_bias2, *others) = tile(y[0], g[0], 0)
        return by_y[None], (by_weight2[None], by_bias2[None], *others)
    zeros = tuple(
        jnp.zeros(shape, jnp.float32)
        for shape in (weight2.shape, bias2.shape, weight3.shape, g.shape[2:])
    )
    shape = (b * tiles, n // tiles)
    sums, by_y = lax.scan(
        step,
        zeros,
        (
            y.reshape(*shape, c),
            g.reshape(*shape, -1),
            jnp.arange(b * tiles) // tiles,
        ),
    )
    return by_y.reshape(b, n, c), sums
