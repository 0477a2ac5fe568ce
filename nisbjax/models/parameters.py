"""Parameters of MedNeXt's parts as NNX modules, drawn as torch draws them.

A block holds arrays alone, one or as many as a stage has blocks on a leading axis; `blocks`
computes with them. `nnunet_mednext` keeps a torch module for each layer of each block.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from nisbjax.models import blocks
from nisbjax.typing import Triple


class Affine(nnx.Module):
    """A weight and a bias: a convolution, or the scale and shift of a norm."""

    def __init__(self, weight: Array, bias: Array):
        self.weight = nnx.Param(weight)
        self.bias = nnx.Param(bias)

    def parameters(self) -> dict[str, Array]:
        return {"weight": self.weight[...], "bias": self.bias[...]}


def uniform(
    rngs: nnx.Rngs,
    shape: Sequence[int],
    outputs: int,
    fan_in: int,
    dtype: Any,
    stack: tuple[int, ...] = (),
) -> Affine:
    """torch's default: weight and bias uniform in +-1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def draw(shape):
        return jax.random.uniform(rngs.params(), shape, dtype, -bound, bound)

    return Affine(draw((*stack, *shape)), draw((*stack, outputs)))


class Block(nnx.Module):
    """Parameters of one block, or of `stack` equal blocks on a leading axis."""

    def __init__(
        self,
        channels: int,
        expansion: int,
        kernel: Triple,
        outputs: int,
        dtype: Any,
        *,
        rngs: nnx.Rngs,
        residual_fan_in: int | None = None,
        stack: tuple[int, ...] = (),
    ):
        hidden = expansion * channels
        taps = math.prod(kernel)
        draw = functools.partial(uniform, rngs, dtype=dtype, stack=stack)
        self.conv1 = draw((*kernel, channels), channels, taps)
        self.norm = Affine(
            jnp.ones((*stack, channels), dtype), jnp.zeros((*stack, channels), dtype)
        )
        self.conv2 = draw((channels, hidden), hidden, channels)
        self.conv3 = draw((hidden, outputs), outputs, hidden)
        if residual_fan_in is not None:
            self.res_conv = draw((channels, outputs), outputs, residual_fan_in)

    def parameters(self) -> blocks.Parameters:
        names = ("conv1", "norm", "conv2", "conv3", "res_conv")
        return {
            name: getattr(self, name).parameters()
            for name in names
            if hasattr(self, name)
        }


class Head(nnx.Module):
    """A 1x1 convolution to logits, in float32 whatever the compute dtype."""

    def __init__(self, channels: int, outputs: int, dtype: Any, *, rngs: nnx.Rngs):
        # Transposed in the reference, whose fan-in torch counts on the output side.
        self.conv_out = uniform(rngs, (channels, outputs), outputs, outputs, dtype)

    def __call__(self, x: Float[Array, "b x y z c"]) -> Float32[Array, "b x y z o"]:
        # JAX's default on a GPU multiplies float32 as TF32, which has float16's mantissa.
        with jax.default_matmul_precision("float32"):
            return blocks.pointwise(x.astype(jnp.float32), self.conv_out.parameters())
