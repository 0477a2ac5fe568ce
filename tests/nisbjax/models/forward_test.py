"""Stages and up blocks in place against the plain ones, tiles, strides and gradients."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.models import blocks, forward

C, R, D = 3, 6, 2


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def parameters(kernel, outputs, stack=(), residual=False):
    def affine(seed, *shape):
        return {
            "weight": draw(seed, *stack, *shape),
            "bias": draw(seed + 1, *stack, shape[-1]),
        }

    found = {
        "conv1": affine(1, *kernel, C),
        "norm": affine(3, C),
        "conv2": affine(5, C, R),
        "conv3": affine(7, R, outputs),
    }
    if residual:
        found["res_conv"] = affine(9, C, outputs)
    return found


def one_by_one(x, stacked):
    for i in range(stacked["norm"]["weight"].shape[0]):
        x = blocks.block(x, jax.tree.map(operator.itemgetter(i), stacked))
    return x


# Two samples of 6 planes of 4 x 2 voxels: 48 hidden values a plane. 1: a plane at a time;
# 150: three planes fit, and 3 divides 6; 240: five fit, the next divisor is 3 again.
@pytest.mark.parametrize(
    ("kernel", "tile"),
    [((3, 3, 3), 1), ((3, 3, 3), 150), ((1, 5, 3), 240), ((5, 5, 5), 1 << 21)],
)
def test_a_stage_is_its_blocks_one_by_one(monkeypatch, kernel, tile):
    monkeypatch.setattr(forward, "TILE_VALUES", tile)
    x, weights = draw(0, 2, 6, 4, 2, C), parameters(kernel, C, stack=(3,))
    got = jax.jit(functools.partial(forward.stage, remat="none"))(x, weights)
    wanted = jax.jit(one_by_one)(x, weights)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)


# A side of one coarse voxel leaves phases of which nothing counts.
@pytest.mark.parametrize(
    ("shape", "strides", "tile"),
    [
        ((4, 3, 2), (2, 2, 2), 1),
        ((4, 3, 2), (1, 2, 2), 1 << 21),
        ((4, 1, 2), (3, 2, 1), 1 << 21),
        ((1, 3, 2), (2, 2, 2), 1 << 21),
        ((3, 2, 2), (1, 1, 1), 1),
    ],
)
def test_an_up_block_by_phases_is_the_plain_one(monkeypatch, shape, strides, tile):
    monkeypatch.setattr(forward, "TILE_VALUES", tile)
    x, weights = draw(0, 2, *shape, C), parameters((3, 3, 3), D, residual=True)
    got = jax.jit(forward.up_block, static_argnums=(2, 3))(x, weights, strides, "none")
    wanted = jax.jit(blocks.up_block, static_argnums=2)(x, weights, strides)
    assert got.shape == (2, *(n * s for n, s in zip(shape, strides)), D)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5)


def test_an_up_block_survives_a_mean_far_above_the_spread():
    # Channels of mean 1000 and spread 1: zeros left in the low planes would put 1000^2
    # into sums of which 1 is wanted.
    x = 1000 + draw(0, 1, 4, 4, 4, C)
    strides = (1, 2, 1)

    def moments(x):
        phases = [x, x + 1]
        places = [(0, 0, 0), (0, 1, 0)]
        low = forward._low_planes_set(
            phases[0], places[0], strides, x[:, 2:3, 2:3, 2:3]
        )
        return forward._moments_of_phases(
            [low, phases[1]], places, strides, x[:, 2, 2, 2]
        )

    mean, variance = jax.jit(moments)(x)
    exact = np.asarray(x[0], np.float64)
    counted = np.concatenate([exact[:, 1:].reshape(-1, C), exact.reshape(-1, C) + 1])
    np.testing.assert_allclose(mean[0], counted.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance[0], counted.var(0), rtol=1e-3)


@pytest.mark.parametrize("remat", ["none", "block"])
def test_gradients_are_those_of_the_plain_functions(remat):
    x, weights = draw(0, 2, 4, 4, 2, C), parameters((3, 3, 3), C, stack=(2,))
    up = parameters((3, 3, 3), D, residual=True)

    def ours(x, weights, up):
        x = forward.stage(x, weights, remat)
        return (forward.up_block(x, up, (2, 2, 2), remat) ** 2).sum()

    def plain(x, weights, up):
        return (blocks.up_block(one_by_one(x, weights), up, (2, 2, 2)) ** 2).sum()

    got = jax.jit(jax.grad(ours, argnums=(0, 1, 2)))(x, weights, up)
    wanted = jax.jit(jax.grad(plain, argnums=(0, 1, 2)))(x, weights, up)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), got, wanted
    )


def test_bfloat16_stays_near_float32():
    x, weights = draw(0, 1, 4, 4, 4, C), parameters((3, 3, 3), C, stack=(2,))
    up = parameters((3, 3, 3), D, residual=True)

    @jax.jit
    def both(x):
        x = forward.stage(x, weights, "none")
        return forward.up_block(x, up, (2, 2, 2), "none")

    exact, rounded = both(x), both(x.astype(jnp.bfloat16))
    assert rounded.dtype == jnp.bfloat16
    # Some ten roundings of 2^-9 each of values up to the largest.
    largest = float(jnp.abs(exact).max())
    assert float(jnp.abs(rounded.astype(jnp.float32) - exact).max()) < 0.03 * largest


def test_the_worked_moments_of_the_docstring():
    phases = [
        jnp.array(values, jnp.float32).reshape(1, 3, 1, 1, 1)
        for values in ([1, 3, 5], [2, 4, 6])
    ]
    mean, variance = forward._moments_of_phases(
        phases, [(0, 0, 0), (1, 0, 0)], (2, 1, 1), jnp.ones((1, 1))
    )
    # The values that count are 3, 5, 2, 4 and 6.
    assert (float(mean.item()), float(variance.item())) == (4.0, 2.0)
