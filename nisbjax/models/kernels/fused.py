"""Blocks of a network on a GPU: each operation as it was chosen, gradients written out.

Source: the blocks of MedNeXt (arXiv:2303.09975), as in `nisbjax.models.blocks`. We differ
from differentiating those in the passes over memory: moments come with the depthwise
result, norm and residual go with the products, the gradient of the moments with that of the
products (its sums are those of the weights' gradients, which therefore come first), and the
residual's gradient with that of the convolution.
"""

import functools
import math
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from nisbjax.models import blocks
from nisbjax.models.blocks import Parameters
from nisbjax.models.depthwise import clear_low_planes
from nisbjax.models.kernels import operations as ops
from nisbjax.models.kernels.choice import Operation
from nisbjax.models.recomputation import again
from nisbjax.typing import Triple

Moments = tuple[Float32[Array, "b c"], Float32[Array, "b c"]]


@runtime_checkable
class Runner(Protocol):
    """`choice.Kernels`, or what stands in for it."""

    def run(self, operation: Operation, *arrays: Array, **static: Any) -> Any:
        """An operation's result."""
        ...


def stage(
    x: Float[Array, "b x y z c"], parameters: Parameters, kernels: Runner, remat: str
) -> Float[Array, "b x y z c"]:
    """`forward.stage`; block after block, so that nothing is copied into a stack.

    Args:
      x: values.
      parameters: of `blocks.block`, with an axis of blocks in front.
      kernels: how operations are computed.
      remat: what a gradient computes again of each block, a word of `recomputation`.
    """
    count = parameters["norm"]["weight"].shape[0]
    for i in range(count):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], parameters)
        x = _traced_block(kernels, remat, x, own)
    return x


@functools.partial(jax.jit, static_argnums=(0, 1))
def _traced_block(kernels, remat, x, parameters):
    """Traced and lowered once for the blocks of a stage."""
    return _block(kernels, remat, x, parameters)


def down_block(
    x: Float[Array, "b x y z c"],
    parameters: Parameters,
    strides: Triple,
    kernels: Runner,
    remat: str,
) -> Float[Array, "b u v w d"]:
    """`blocks.down_block`."""

    def down(x, parameters):
        weight = parameters["conv1"]["weight"]
        low = tuple(k // 2 for k in weight.shape[:3])
        y: Any = _gather(kernels, strides, low, x, weight)
        moments = blocks.moments(lax.stop_gradient(y))
        sx, sy, sz = strides
        residual = blocks.pointwise(x[:, ::sx, ::sy, ::sz], parameters["res_conv"])
        return _normed_mix(kernels, (0, 0, 0), y, moments, residual, parameters)

    return again("block", down, remat)(x, parameters)


def up_block(
    x: Float[Array, "b x y z c"],
    parameters: Parameters,
    strides: Triple,
    kernels: Runner,
    remat: str,
) -> Float[Array, "b u v w d"]:
    """`blocks.up_block`; its depthwise result keeps what the low planes hold.

    They are left out of the moments, and cleared behind the products.
    """
    skipped = tuple(s - 1 for s in strides)

    def up(x, parameters):
        weight = parameters["conv1"]["weight"]
        low = tuple(k // 2 - n for k, n in zip(weight.shape[:3], skipped))
        y: Any = _scatter(kernels, strides, low, x, weight)
        i, j, k = skipped
        moments = blocks.moments(lax.stop_gradient(y)[:, i:, j:, k:])
        reached = jnp.matmul(x, parameters["res_conv"]["weight"].astype(x.dtype))
        around = [(0, 0, 0), *((n, 0, n) for n in skipped), (0, 0, 0)]
        residual = lax.pad(reached, jnp.zeros((), x.dtype), around)
        bias = parameters["res_conv"]["bias"].astype(x.dtype)
        residual = residual + bias.reshape(1, 1, 1, 1, -1)
        z: Any = _normed_mix(kernels, skipped, y, moments, residual, parameters)
        return clear_low_planes(z, strides)

    return again("block", up, remat)(x, parameters)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _block(kernels, remat, x, parameters):
    return _block_forward(kernels, remat, x, parameters)[0]


def _block_forward(kernels, remat, x, parameters):
    y, *moments = _convolved(kernels, x, parameters)
    z = _mixed(kernels, y, tuple(moments), x, parameters)
    kept = () if remat == "block" else (y, tuple(moments))
    return z, (x, parameters, kept)


def _convolved(kernels, x, parameters):
    weight = parameters["conv1"]["weight"]
    return kernels.run(ops.CONVOLVE, x, weight, moments=True)


def _block_backward(kernels, remat, residuals, g):
    x, parameters, kept = residuals
    if not kept:
        # Without the barrier XLA finds the first result equal, and keeps it.
        x, g = lax.optimization_barrier((x, g))
        y, *moments = _convolved(kernels, x, parameters)
        kept = (y, tuple(moments))
    y, moments = kept
    by_y, gradients = _mixed_backward(kernels, (0, 0, 0), y, moments, parameters, g)
    weight = parameters["conv1"]["weight"]
    mirrored = weight[::-1, ::-1, ::-1]
    by_x = kernels.run(ops.CONVOLVE, by_y, mirrored, g, moments=False)
    kernel = weight.shape[:3]
    low = tuple(k // 2 for k in kernel)
    by_weight = kernels.run(
        ops.KERNEL_GRADIENT, x, by_y, kernel=kernel, strides=(1, 1, 1), low=low
    )
    bias = jnp.zeros_like(parameters["conv1"]["bias"])
    gradients["conv1"] = {"weight": by_weight.astype(weight.dtype), "bias": bias}
    return by_x, _completed(gradients, parameters)


def _completed(gradients, parameters):
    """With zeros for the parts of a block that had nothing to do with it."""
    others = parameters.keys() - gradients.keys()
    zeros = {name: jax.tree.map(jnp.zeros_like, parameters[name]) for name in others}
    return gradients | zeros


_block.defvjp(_block_forward, _block_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normed_mix(kernels, skipped, y, moments, residual, parameters):
    """residual + conv3(gelu(conv2(norm(y)))).

    Args:
      kernels: how operations are computed.
      skipped: planes at the low end of each axis that are not in the moments; what they
        become is not looked at.
      y: values.
      moments: of y: its gradient goes through them too.
      residual: is added.
      parameters: of the block; those of other parts have gradients of zero.
    """
    del skipped
    return _mixed(kernels, y, moments, residual, parameters)


def _normed_mix_forward(kernels, skipped, y, moments, residual, parameters):
    z = _normed_mix(kernels, skipped, y, moments, residual, parameters)
    return z, (y, moments, parameters)


def _normed_mix_backward(kernels, skipped, residuals, g):
    y, moments, parameters = residuals
    by_y, gradients = _mixed_backward(kernels, skipped, y, moments, parameters, g)
    by_y = clear_low_planes(by_y, tuple(n + 1 for n in skipped))
    by_moments = jax.tree.map(jnp.zeros_like, moments)
    return by_y, by_moments, g, _completed(gradients, parameters)


_normed_mix.defvjp(_normed_mix_forward, _normed_mix_backward)


def _mixed(kernels, y, moments, residual, parameters):
    weights = _folded(moments, parameters, y.dtype)
    bias3 = parameters["conv3"]["bias"].reshape(-1)
    z = kernels.run(ops.MIX, _rows(y), *weights, bias3, _rows(residual))
    return z.reshape(residual.shape)


def _rows(x):
    return x.reshape(x.shape[0], math.prod(x.shape[1:4]), x.shape[4])


def _folded(moments, parameters, dtype):
    """Mean, weights and bias by which the products norm their input, and the last weights.

    The mean is of the data's type; the bias makes up for what it lost by that.
    """
    mean, variance = moments
    short = mean.astype(dtype)
    weight, bias = _norm(mean, variance, parameters["norm"], parameters["conv2"], short)
    third = parameters["conv3"]["weight"].astype(dtype)
    return short, weight.astype(dtype), bias, third


def _norm(mean, variance, norm, conv2, short):
    scale = lax.rsqrt(variance + blocks.EPSILON) * norm["weight"].reshape(1, -1)
    rest = mean - short.astype(jnp.float32)
    shift = norm["bias"].reshape(1, -1) - rest * scale
    weight = scale[:, :, None] * conv2["weight"][None]
    bias = jnp.matmul(shift, conv2["weight"], precision="highest")
    return weight, bias + conv2["bias"].reshape(1, -1)


def _mixed_backward(kernels, skipped, y, moments, parameters, g):
    """Gradients by y, through its moments too, and by the parameters of norm and products."""
    # Traced after its caller has left the context that forbids TF32.
    full = y.dtype == jnp.float32
    with jax.default_matmul_precision("float32") if full else nullcontext():
        return _mix_gradients(kernels, skipped, y, moments, parameters, g)


def _mix_gradients(kernels, skipped, y, moments, parameters, g):
    mean, variance = moments
    short, weight2, bias2, weight3 = _folded(moments, parameters, y.dtype)
    rows, g = _rows(y), _rows(g)
    given = (rows, g, short, weight2, bias2, weight3)
    by_weight2, by_bias2, by_weight3, by_bias3 = kernels.run(
        ops.MIX_WEIGHT_GRADIENTS, *given
    )
    norm, conv2, conv3 = (parameters[name] for name in ("norm", "conv2", "conv3"))
    # The mean itself is shifted out of y; what it does is in the sum over y's gradient.
    fold = functools.partial(_norm, lax.stop_gradient(mean), short=short)
    _, pull = jax.vjp(fold, variance, norm, conv2)
    by_variance, by_norm, by_conv2 = pull((by_weight2, by_bias2))
    sizes = (n - low for n, low in zip(y.shape[1:4], skipped))
    count = math.prod(sizes)
    long2 = weight2.astype(jnp.float32)
    by_mean = -jnp.einsum("br,bcr->bc", by_bias2, long2, precision="highest")
    slope = 2 * by_variance / count
    rest = mean - short.astype(jnp.float32)
    constant = by_mean / count - slope * rest
    by_y = kernels.run(ops.MIX_INPUT_GRADIENT, *given, constant, slope)
    by_conv3 = {
        "weight": by_weight3.astype(conv3["weight"].dtype),
        "bias": by_bias3.astype(conv3["bias"].dtype).reshape(conv3["bias"].shape),
    }
    gradients = {"norm": by_norm, "conv2": by_conv2, "conv3": by_conv3}
    return by_y.reshape(y.shape), gradients


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _gather(kernels, strides, low, x, weight):
    return kernels.run(ops.GATHER, x, weight, strides=strides, low=low)


def _gather_forward(kernels, strides, low, x, weight):
    return _gather(kernels, strides, low, x, weight), (x, weight)


def _gather_backward(kernels, strides, low, residuals, g):
    x, weight = residuals
    kernel = weight.shape[:3]
    links = {"strides": strides, "low": low}
    by_weight = kernels.run(ops.KERNEL_GRADIENT, x, g, kernel=kernel, **links)
    by_x = kernels.run(ops.SCATTER, g, weight, **links)
    return by_x, by_weight.astype(weight.dtype)


_gather.defvjp(_gather_forward, _gather_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scatter(kernels, strides, low, x, weight):
    return kernels.run(ops.SCATTER, x, weight, strides=strides, low=low)


def _scatter_forward(kernels, strides, low, x, weight):
    return _scatter(kernels, strides, low, x, weight), (x, weight)


def _scatter_backward(kernels, strides, low, residuals, g):
    x, weight = residuals
    kernel = weight.shape[:3]
    links = {"strides": strides, "low": low}
    by_weight = kernels.run(ops.KERNEL_GRADIENT, g, x, kernel=kernel, **links)
    by_x = kernels.run(ops.GATHER, g, weight, **links)
    return by_x, by_weight.astype(weight.dtype)


_scatter.defvjp(_scatter_forward, _scatter_backward)
