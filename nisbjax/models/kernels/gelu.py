"""GELU and its slope inside a kernel, in few instructions of a GPU.

Source: the exact GELU of MedNeXt (arXiv:2303.09975), x times the normal distribution
function. We differ in how that is computed: there is no erf among a GPU's instructions, and
a rational form of it takes thirty. For float16 and bfloat16 the distribution function is a
logistic function of an odd polynomial, fitted to an error of 4e-5 everywhere (a tenth of
the rounding of float16); float32 takes the rational form, of error 1.5e-7 (Abramowitz and
Stegun 7.1.26).
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton as plt

# erf(x / sqrt 2) is tanh(x (A + B x^2 + C x^4)) to 4e-5; the polynomial turns beyond 6,
# where both are 1.
A, B, C = 0.7977119477, 0.03680747595, -0.0003178939663
END = 36.0


def parts(x: jax.Array, *, half: bool, on_gpu: bool) -> tuple[jax.Array, jax.Array]:
    """GELU of x and its slope there.

    Args:
      x: float32.
      half: whether what is made of the result is float16 or bfloat16.
      on_gpu: whether its instructions may be used.
    """
    if not half:
        cdf = 0.5 + 0.5 * _erf(x * math.sqrt(0.5))
        density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        return x * cdf, cdf + x * density
    square = jnp.minimum(x * x, END)
    cdf = _logistic(x, square, on_gpu)
    value = x * cdf
    by_x = 2 * A + square * (6 * B + square * (10 * C))
    return value, cdf + (value - value * cdf) * by_x


def _logistic(x, square, on_gpu):
    """1 / (1 + exp(-2 x (A + ...))) by two instructions for special functions."""
    a, b, c = (-2 * math.log2(math.e) * term for term in (A, B, C))
    exponent = x * (a + square * (b + square * c))
    if not on_gpu:
        return 1 / (1 + jnp.exp2(exponent))
    power = _instruction("ex2.approx.ftz.f32", exponent)
    return _instruction("rcp.approx.ftz.f32", 1 + power)


def _instruction(name: str, x: jax.Array) -> jax.Array:
    [result] = plt.elementwise_inline_asm(
        f"{name} $0, $1;",
        args=[x],
        constraints="=f,f",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, x.dtype)],
    )
    return result


def _erf(x):
    t = 1 / (1 + 0.3275911 * jnp.abs(x))
    series = 1.061405429
    for term in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + term
    value = 1 - series * t * jnp.exp(-x * x)
    return jnp.where(x < 0, -value, value)
