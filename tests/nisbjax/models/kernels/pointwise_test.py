"""The pointwise kernels, interpreted, against their formulas in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from nisbjax.models.kernels import gelu, pointwise
from nisbjax.models.kernels.pointwise import Tile, Weights

# 32 voxels do not divide 45; 48 channels are no power of two.
TILE = Tile(voxels=32, hidden=16, warps=4, stages=1, groups=2, parts=3)
SHAPE = (2, 45, 48, 96, 24)


def cdf(x):
    return scipy.special.ndtr(x)


def slope(x):
    return cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def made(dtype, seed=0):
    """y, g, weights, residual: as the kernels take them, and in float64."""
    b, n, c, r, o = SHAPE
    random = np.random.default_rng(seed)

    def draw(*shape, scale=1.0, kind=dtype):
        return jnp.asarray(scale * random.standard_normal(shape), kind)

    y, g, residual = draw(b, n, c) + 2, draw(b, n, o), draw(b, n, o)
    weights = Weights(
        draw(b, c) + 2,
        draw(b, c, r, scale=0.2),
        draw(b, r, kind=jnp.float32),
        draw(r, o, scale=0.2),
        draw(o, kind=jnp.float32),
    )
    return y.astype(dtype), g, weights, residual


def wide(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def hidden_of(y, weights):
    centred = y - weights.mean[:, None]
    return centred, centred @ weights.weight2 + weights.bias2[:, None]


def error(a, b):
    return np.linalg.norm(np.asarray(a, float) - b) / np.linalg.norm(b)


KINDS = pytest.mark.parametrize(
    "dtype, bound", [(jnp.float32, 1e-6), (jnp.float16, 1e-3), (jnp.bfloat16, 1e-2)]
)


@KINDS
def test_mix(dtype, bound):
    y, _, weights, residual = made(dtype)
    run = jax.jit(lambda *a: pointwise.mix(*a, tile=TILE))
    result = run(y, weights, residual)
    assert result.dtype == dtype
    y, weights, residual = wide((y, weights, residual))
    h = hidden_of(y, weights)[1]
    wanted = (h * cdf(h)) @ weights.weight3 + weights.bias3 + residual
    assert error(result, wanted) < bound


@KINDS
def test_input_gradient(dtype, bound):
    """(g W3' times the slope) W2', and u + v (y - mean) for what the moments pass on."""
    y, g, weights, _ = made(dtype)
    u, v = (
        jnp.asarray(np.random.default_rng(i).standard_normal((2, 48))) for i in (5, 6)
    )
    moments = (u.astype(jnp.float32), v.astype(jnp.float32))
    run = jax.jit(lambda *a: pointwise.input_gradient(*a, tile=TILE))
    result = run(y, g, weights, moments)
    assert result.dtype == dtype
    y, g, weights, (u, v) = wide((y, g, weights, moments))
    centred, h = hidden_of(y, weights)
    by_hidden = (g @ weights.weight3.T) * slope(h)
    wanted = by_hidden @ weights.weight2.swapaxes(1, 2)
    wanted += u[:, None] + v[:, None] * centred
    assert error(result, wanted) < bound


@KINDS
def test_weight_gradients(dtype, bound):
    y, g, weights, _ = made(dtype)
    run = jax.jit(lambda *a: pointwise.weight_gradients(*a, tile=TILE))
    result = run(y, g, weights)
    assert {leaf.dtype for leaf in result} == {jnp.dtype("float32")}
    y, g, weights = wide((y, g, weights))
    centred, h = hidden_of(y, weights)
    by_hidden = (g @ weights.weight3.T) * slope(h)
    wanted = (
        np.einsum("bnc,bnr->bcr", centred, by_hidden),
        by_hidden.sum(1),
        np.einsum("bnr,bno->ro", h * cdf(h), g),
        g.sum((0, 1)),
    )
    for part, right in zip(result, wanted, strict=True):
        assert error(part, right) < bound


@pytest.mark.parametrize(
    "half, value_bound, slope_bound", [(False, 1e-6, 1e-6), (True, 6e-5, 2e-4)]
)
def test_gelu_and_its_slope_everywhere(half, value_bound, slope_bound):
    """The bounds are those of the fit: absolute, and far out relative to x or to 0."""
    x = np.concatenate([np.linspace(-12, 12, 24001), [-1e4, -100, 100, 1e4, 0]])
    value, by_x = gelu.parts(jnp.asarray(x, jnp.float32), half=half, on_gpu=False)
    np.testing.assert_allclose(value, x * cdf(x), atol=value_bound, rtol=1e-6)
    np.testing.assert_allclose(by_x, slope(x), atol=slope_bound)
