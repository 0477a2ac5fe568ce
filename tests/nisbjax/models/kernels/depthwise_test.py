"""Depthwise kernels, interpreted, against sums over taps written out in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.models import depthwise as plain
from nisbjax.models.kernels import depthwise
from nisbjax.models.kernels.depthwise import Tile

# Rows 4, columns 8 and planes 2 divide no axis of the images below.
TILE = Tile(rows=4, columns=8, channels=16, vector=2, planes=2, warps=4)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def summed(x, weight, strides=(1, 1, 1), low=None):
    """Sum over taps t of weight[t] x[stride o + t - low], zero outside; float64."""
    kernel = weight.shape[:3]
    low = low or tuple(k // 2 for k in kernel)
    shape = [n // s for n, s in zip(x.shape[1:4], strides)]
    out = np.zeros((x.shape[0], *shape, x.shape[4]))
    for o in np.ndindex(*shape):
        for t in np.ndindex(*kernel):
            at = tuple(s * i + j - n for s, i, j, n in zip(strides, o, t, low))
            if all(0 <= i < n for i, n in zip(at, x.shape[1:4])):
                out[(slice(None), *o)] += weight[t] * x[(slice(None), *at)]
    return out


def error(a, b):
    return np.linalg.norm(np.asarray(a, float) - b) / np.linalg.norm(b)


def float32(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@pytest.mark.parametrize("kernel", [(3, 3, 1), (1, 3, 5)])
@pytest.mark.parametrize("vector", [2, 16])
def test_a_convolution_whose_size_no_tile_divides(kernel, vector):
    """16 channels of a thread times 9 or 15 weights are more than it holds: read again."""
    x, weight = draw(2, 3, 5, 9, 32), draw(*kernel, 32, seed=1)
    assert (9 * 16 > depthwise.HELD) and (15 * 2 <= depthwise.HELD)
    tile = TILE._replace(vector=vector)
    run = jax.jit(lambda x, w: depthwise.convolve(x, w, tile=tile)[0])
    assert error(run(*float32(x, weight)), summed(x, weight)) < 1e-6


@pytest.mark.parametrize("offset, residual_offset", [(3000, 0), (0, 3000)])
def test_moments_far_from_zero(offset, residual_offset):
    """Of values 3000 +- 1, sums of squares in float32 are 9e6 +- 1: no digit of a variance.

    The moments are those of the result with its residual, rounded as it is kept. The axis
    of three taps is the one that no voxel of another value borders on.
    """
    x, weight = offset + draw(2, 5, 6, 9, 16), np.zeros((1, 1, 3, 16))
    weight[0, 0, 1] = 1
    residual = residual_offset + draw(*x.shape, seed=2)
    run = jax.jit(lambda x, w, r: depthwise.convolve(x, w, r, moments=True, tile=TILE))
    y, parts = run(*float32(x, weight, residual))
    assert error(y, summed(x, weight) + residual) < 1e-6
    mean, variance = depthwise.combined(parts, x.shape, TILE)
    y = np.asarray(y, float)
    np.testing.assert_allclose(mean, y.mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance, y.var((1, 2, 3)), rtol=1e-4)


def test_half_precision_is_rounded_once():
    """Nine products of values of 10 bits: float32 adds them up, float16 rounds the sum."""
    x, weight = draw(1, 3, 4, 5, 16), draw(3, 3, 1, 16, seed=1)
    x = x.astype(np.float16)
    run = jax.jit(lambda x, w: depthwise.convolve(x, w, tile=TILE)[0])
    y = run(jnp.asarray(x), jnp.asarray(weight, jnp.float32))
    wanted = summed(x.astype(float), weight.astype(np.float32).astype(float))
    assert y.dtype == jnp.float16
    # Half a unit in the last place, and a few of float32's.
    assert (
        np.max(np.abs(np.asarray(y, float) - wanted) / np.abs(wanted)) < 2**-11 + 1e-4
    )


@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 2)])
def test_strides_and_their_adjoint(strides):
    kernel, low = (3, 3, 1), (1, 0, 0)
    x, weight = draw(1, 4, 6, 8, 16), draw(*kernel, 16, seed=1)
    gather = jax.jit(lambda x, w: depthwise.gather(x, w, strides, low, tile=TILE))
    y = gather(*float32(x, weight))
    assert error(y, summed(x, weight, strides, low)) < 1e-6
    # <g, gather x> = <scatter g, x>, and the same by each weight.
    g = draw(*y.shape, seed=2)
    scatter = jax.jit(lambda g, w: depthwise.scatter(g, w, strides, low, tile=TILE))
    by_x, by_weight = jax.vjp(
        lambda x, w: plain.gather(x, w, strides, low), *float32(x, weight)
    )[1](*float32(g))
    assert error(scatter(*float32(g, weight)), np.asarray(by_x, float)) < 1e-6
    gradient = jax.jit(
        lambda x, g: depthwise.kernel_gradient(x, g, kernel, strides, low, tile=TILE)
    )
    assert error(gradient(*float32(x, g)), np.asarray(by_weight, float)) < 1e-6


def test_the_gradient_by_a_kernel_in_one_pass_over_the_planes():
    """Sum over o of g[o] x[o + t - 1]: every plane of x meets three of g."""
    x, g, kernel = draw(2, 5, 5, 9, 16), draw(2, 5, 5, 9, 16, seed=1), (3, 1, 3)
    run = jax.jit(
        lambda x, g: depthwise.rolling_kernel_gradient(x, g, kernel, tile=TILE)
    )
    padded = np.pad(x, [(0, 0), (1, 1), (0, 0), (1, 1), (0, 0)])
    wanted = np.zeros((*kernel, 16))
    for i, j, k in itertools.product(*map(range, kernel)):
        wanted[i, j, k] = (padded[:, i : i + 5, :, k : k + 9] * g).sum((0, 1, 2, 3))
    assert error(run(*float32(x, g)), wanted) < 1e-6


def test_programs():
    """Tiles of 4 x 8 over 9 x 17: 3 x 3; 2 blocks of channels, 3 of planes, 2 samples."""
    assert depthwise.programs((2, 5, 9, 17, 32), TILE) == 3 * 3 * 2 * 3 * 2
