"""Depthwise convolutions against the formula, voxel by voxel, and against XLA's own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nisbjax.models import depthwise

CASES = [  # size, kernel, strides
    ((3, 4, 5), (3, 3, 3), (1, 1, 1)),
    ((4, 6, 4), (3, 3, 3), (2, 2, 2)),
    ((4, 4, 4), (5, 5, 5), (2, 2, 2)),
    ((3, 4, 4), (1, 3, 3), (1, 2, 2)),
    ((4, 3, 6), (5, 5, 5), (1, 1, 1)),
    ((4, 2, 6), (1, 1, 1), (2, 1, 3)),
    ((4, 4, 2), (7, 7, 7), (2, 2, 2)),
    ((3, 2, 4), (7, 7, 7), (1, 1, 1)),
]


def draw(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def convolve(x, weight, strides):
    """out[o] = sum over taps of x[stride * o + tap - k // 2] * weight[tap]."""
    sizes, kernel = x.shape[1:4], weight.shape[:3]
    coarse = [n // s for n, s in zip(sizes, strides)]
    out = np.zeros((x.shape[0], *coarse, x.shape[4]))
    for o in np.ndindex(*coarse):
        for tap in np.ndindex(*kernel):
            at = [s * i + t - k // 2 for s, i, t, k in zip(strides, o, tap, kernel)]
            if all(0 <= i < n for i, n in zip(at, sizes)):
                out[:, *o] += x[:, *at] * weight[tap]
    return out


def convolve_transposed(x, weight, strides):
    """Each input adds its kernel around stride * i, one plane group up for the pad."""
    sizes, kernel = x.shape[1:4], weight.shape[:3]
    fine = [n * s for n, s in zip(sizes, strides)]
    out = np.zeros((x.shape[0], *fine, x.shape[4]))
    for i in np.ndindex(*sizes):
        for tap in np.ndindex(*kernel):
            at = [s * j + t - k // 2 for s, j, t, k in zip(strides, i, tap, kernel)]
            # torch's output has (n - 1) * s + 1 positions; the pad moves them by s - 1.
            if all(0 <= a <= (n - 1) * s for a, n, s in zip(at, sizes, strides)):
                moved = [a + s - 1 for a, s in zip(at, strides)]
                out[:, *moved] += x[:, *i] * weight[tap]
    return out


@pytest.mark.parametrize("size, kernel, strides", CASES)
def test_follows_the_formula(size, kernel, strides):
    x, weight = draw(0, (2, *size, 3)), draw(1, (*kernel, 3))
    convolved = jax.jit(depthwise.depthwise, static_argnums=2)
    down = convolved(jnp.asarray(x), jnp.asarray(weight), strides)
    np.testing.assert_allclose(down, convolve(x, weight, strides), atol=1e-5)
    transposed = jax.jit(depthwise.depthwise_transposed, static_argnums=2)
    up = transposed(jnp.asarray(x), jnp.asarray(weight), strides)
    np.testing.assert_allclose(up, convolve_transposed(x, weight, strides), atol=1e-5)


def grouped(x, weight, strides):
    return lax.conv_general_dilated(
        x,
        weight[:, :, :, None],
        strides,
        [(k // 2, k // 2) for k in weight.shape[:3]],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=x.shape[-1],
    )


def grouped_transposed(x, weight, strides):
    out = lax.conv_general_dilated(
        x,
        weight[::-1, ::-1, ::-1, None],
        (1, 1, 1),
        [(k - 1 - k // 2,) * 2 for k in weight.shape[:3]],
        lhs_dilation=strides,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=x.shape[-1],
    )
    return jnp.pad(out, [(0, 0), *((s - 1, 0) for s in strides), (0, 0)])


@pytest.mark.parametrize("size, kernel, strides", [CASES[i] for i in (0, 1, 3, 4, 6)])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_equal_those_of_the_grouped_convolution(
    size, kernel, strides, transposed
):
    ours = depthwise.depthwise_transposed if transposed else depthwise.depthwise
    theirs = grouped_transposed if transposed else grouped
    x, weight = jnp.asarray(draw(0, (2, *size, 2))), jnp.asarray(draw(1, (*kernel, 2)))
    out, pull = jax.vjp(jax.jit(lambda x, w: theirs(x, w, strides)), x, weight)
    g = jnp.asarray(draw(2, out.shape))
    _, pull_ours = jax.vjp(jax.jit(lambda x, w: ours(x, w, strides)), x, weight)
    for got, wanted in zip(pull_ours(g), pull(g)):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(
    "kernel, strides", [((3, 3, 3), (2, 2, 2)), ((3,) * 3, (1,) * 3)]
)
def test_both_weight_gradients_agree(kernel, strides):
    """The loop over rows (CPU) and one reduction per tap (elsewhere)."""
    coarse = jnp.asarray(draw(0, (2, 2, 6, 3, 4)))  # gcd(6, 16) = 2 rows at a time
    fine = [n * s for n, s in zip(coarse.shape[1:4], strides)]
    padded = jnp.asarray(draw(1, (2, *(n + 2 for n in fine), 4)))
    rows = depthwise._reduce_rows(padded, coarse, kernel, strides)
    taps = depthwise._reduce_each_tap(padded, coarse, kernel, strides)
    np.testing.assert_allclose(rows, taps, atol=1e-5)


def test_interleave_puts_each_phase_in_its_place():
    strides = (2, 1, 3)
    phases = jnp.broadcast_to(
        jnp.arange(6.0).reshape(6, 1, 1, 1, 1, 1), (6, 1, 2, 2, 1, 1)
    )
    mixed = np.asarray(depthwise.interleave(phases, strides))[0, ..., 0]
    assert mixed.shape == (4, 2, 3)
    for x, y, z in itertools.product(range(4), range(2), range(3)):
        assert mixed[x, y, z] == (x % 2) * 3 + z % 3


def test_bfloat16_sums_in_float32():
    # 27 taps of 1 over 27 ones: exact in float32, 27 is a bfloat16; a running bfloat16
    # sum of 1/3-ish terms would lose digits, so compare with the rounded exact sum.
    x, weight = draw(0, (1, 4, 4, 4, 2)), draw(1, (3, 3, 3, 2))
    x, weight = jnp.asarray(x, jnp.bfloat16), jnp.asarray(weight)
    got = depthwise.depthwise(x, weight, (1, 1, 1))
    assert got.dtype == jnp.bfloat16
    exact = convolve(np.asarray(x, np.float32), np.asarray(weight), (1, 1, 1))
    np.testing.assert_allclose(
        np.asarray(got, np.float32), exact, rtol=2**-8, atol=1e-6
    )
