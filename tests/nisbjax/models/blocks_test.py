"""MedNeXt blocks against their formula in NumPy, outputs and gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.models import blocks
from nisbjax.models.depthwise import depthwise, depthwise_transposed

C, R, D = 3, 6, 2


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def parameters(outputs, residual=False):
    def affine(seed, *shape):
        return {"weight": draw(seed, *shape), "bias": draw(seed + 1, shape[-1])}

    found = {
        "conv1": affine(1, 3, 3, 3, C),
        "norm": affine(3, C),
        "conv2": affine(5, C, R),
        "conv3": affine(7, R, outputs),
    }
    if residual:
        found["res_conv"] = affine(9, C, outputs)
    return found


def literal(y, counted, p):
    """conv3(gelu(conv2(norm(y)))) one operation at a time, bias of conv1 included."""
    y, counted = y + p["conv1"]["bias"][None], counted + p["conv1"]["bias"][None]
    mean = jnp.mean(counted, axis=(1, 2, 3), keepdims=True)
    variance = jnp.mean((counted - mean) ** 2, axis=(1, 2, 3), keepdims=True)
    y = (y - mean) / jnp.sqrt(variance + 1e-5)
    y = y * p["norm"]["weight"][None] + p["norm"]["bias"][None]
    y = y @ p["conv2"]["weight"] + p["conv2"]["bias"][None]
    y = 0.5 * y * (1 + jax.scipy.special.erf(y / math.sqrt(2)))
    return y @ p["conv3"]["weight"] + p["conv3"]["bias"][None]


def literal_block(x, p):
    y = depthwise(x, p["conv1"]["weight"], (1, 1, 1))
    return x + literal(y, y, p)


def literal_down(x, p):
    y = depthwise(x, p["conv1"]["weight"], (2, 2, 2))
    residual = x[:, ::2, ::2, ::2] @ p["res_conv"]["weight"]
    return residual + p["res_conv"]["bias"][None] + literal(y, y, p)


def literal_up(x, p):
    # 2n - 1 positions, all in the norm; the zero planes come last of all.
    y = depthwise_transposed(x, p["conv1"]["weight"], (2, 2, 2))[:, 1:, 1:, 1:]
    residual = jnp.zeros((*y.shape[:4], D))
    residual = residual.at[:, ::2, ::2, ::2].set(x @ p["res_conv"]["weight"])
    out = residual + p["res_conv"]["bias"][None] + literal(y, y, p)
    return jnp.pad(out, ((0, 0), (1, 0), (1, 0), (1, 0), (0, 0)))


def down(x, p):
    return blocks.down_block(x, p, (2, 2, 2))


def up(x, p):
    return blocks.up_block(x, p, (2, 2, 2))


@pytest.mark.parametrize(
    "ours, theirs, weights",
    [
        (blocks.block, literal_block, parameters(C)),
        (down, literal_down, parameters(D, residual=True)),
        (up, literal_up, parameters(D, residual=True)),
    ],
)
def test_block_and_its_gradients_follow_the_formula(ours, theirs, weights):
    with jax.numpy_rank_promotion("allow"):
        x = draw(0, 2, 4, 4, 2, C)
        wanted, pull = jax.vjp(jax.jit(theirs), x, weights)
        got, pull_ours = jax.vjp(jax.jit(ours), x, weights)
        np.testing.assert_allclose(got, wanted, atol=2e-5)
        g = draw(11, *wanted.shape)
        (by_x, by_weights), (by_x_ours, by_weights_ours) = pull(g), pull_ours(g)
    np.testing.assert_allclose(by_x_ours, by_x, atol=1e-4)
    # The norm takes conv1's bias out again: its gradient is zero, not rounding.
    np.testing.assert_allclose(by_weights["conv1"]["bias"], 0, atol=1e-3)
    np.testing.assert_array_equal(by_weights_ours["conv1"].pop("bias"), 0)
    del by_weights["conv1"]["bias"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4),
        by_weights_ours,
        by_weights,
    )


def test_moments_survive_a_mean_far_above_the_spread():
    # One pass of sums of squares would lose it: (1e4)^2 * 6e-8 = 6, the variance is 1.
    y = draw(0, 1, 8, 8, 8, 2) + 1e4
    mean, variance = jax.jit(blocks.moments)(y)
    exact = np.asarray(y, np.float64).reshape(-1, 2)
    np.testing.assert_allclose(mean[0], exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance[0], exact.var(0), rtol=1e-3)


def test_tiles_change_nothing():
    y, g = draw(0, 2, 24, C), draw(1, 2, 24, D)
    weights = (draw(2, 2, C, R), draw(3, 2, R), draw(4, R, D), draw(5, D))
    whole = jax.jit(lambda *a: blocks._mlp(*a, tile_values=None))(y, *weights)
    tiled = jax.jit(lambda *a: blocks._mlp(*a, tile_values=40))(y, *weights)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    arguments = (y, *weights[:3], g)
    whole = jax.jit(lambda *a: blocks._mlp_gradients(*a, tile_values=None))(*arguments)
    tiled = jax.jit(lambda *a: blocks._mlp_gradients(*a, tile_values=40))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), tiled, whole)


def test_bfloat16_stays_near_float32_far_from_zero():
    # Channels of mean 30 and spread 3: rounding them alone moves the normed values by
    # 33 * 2^-9 / 3 = 2 %, and the outputs, which reach 20, by 1.
    weights = parameters(C)
    weights["conv1"]["weight"] = weights["conv1"]["weight"].at[1, 1, 1].add(30)
    x = 1 + 0.1 * draw(0, 1, 4, 4, 4, C)
    exact = jax.jit(blocks.block)(x, weights)
    got = jax.jit(blocks.block)(x.astype(jnp.bfloat16), weights)
    assert got.dtype == jnp.bfloat16
    assert float(jnp.abs(got.astype(jnp.float32) - exact).max()) < 1
