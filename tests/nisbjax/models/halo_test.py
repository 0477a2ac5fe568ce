"""What devices compute of a crop that they share, beside what one computes of all of it.

The whole network is in tests/slow/space_test.py.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from nisbjax.errors import InputError
from nisbjax.models import blocks, halo
from nisbjax.models.depthwise import clear_low_planes, depthwise, depthwise_transposed

SPACE = halo.SplitAxis("space", 4)
ROWS = PartitionSpec(None, "space")
# Compiling takes longer than running here, and as long again with LLVM's optimisation.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def mesh():
    return Mesh(np.array(jax.devices()[: SPACE.size]), (SPACE.axis,))


def shared(function, arguments, out=ROWS):
    """Of x, split along its planes, and of weights that all have."""
    return jax.shard_map(
        function,
        mesh=mesh(),
        in_specs=(ROWS, *[PartitionSpec()] * (arguments - 1)),
        out_specs=out,
        check_vma=False,
    )


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(compiler_options=QUICK)


def drawn(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def test_planes_of_neighbours_by_hand():
    x = jnp.arange(8.0).reshape(1, 8, 1, 1, 1)  # two planes a device
    program = shared(lambda x: halo.fetch(x, 2, 1, SPACE), 1)
    got = np.asarray(program(x)).reshape(4, 5)
    np.testing.assert_array_equal(
        got,
        [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7, 0]],
    )
    # Back where they came from: planes 0 and 1 are seen by devices 0 and 1, and so on.
    gradient = jax.grad(lambda x: program(x).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), [2, 2, 3, 2, 3, 2, 2, 1 + 0])


CONVOLUTIONS = [
    (halo.convolved, depthwise, 3, (1, 1, 1), 2),
    (halo.convolved, depthwise, 3, (2, 2, 1), 1),
    (halo.convolved, depthwise, 5, (2, 1, 2), 2),
    (halo.convolved, depthwise, 3, (4, 1, 1), 1),  # the last planes reach nobody
    (halo.convolved_transposed, depthwise_transposed, 3, (2, 2, 1), 1),
    (halo.convolved_transposed, depthwise_transposed, 5, (2, 1, 1), 2),
    (halo.convolved_transposed, depthwise_transposed, 3, (3, 1, 1), 1),
]


@pytest.mark.parametrize(
    "split, whole, kernel, strides, permutes",
    CONVOLUTIONS,
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_convolutions_and_their_gradients(split, whole, kernel, strides, permutes):
    """One message to each side that the kernel reaches to, and the same numbers."""
    x = drawn(1, 32 if strides[0] < 3 else 48, *[2 * s for s in strides[1:]], 2)
    weight = drawn(kernel, 1, 3, 2, seed=1)

    def one(x, weight):
        return whole(x, weight, strides)

    program = shared(lambda x, w: split(x, w, strides, SPACE), 2)
    forward = compiled(program, x, weight)
    text = forward.as_text()
    assert len(re.findall(r"= \S+ collective-permute(?:-start)?\(", text)) == permutes
    assert not re.search(r"all-(gather|reduce|to-all)|reduce-scatter", text)
    wanted, pull = jax.vjp(one, x, weight)
    np.testing.assert_allclose(forward(x, weight), wanted, atol=1e-5)
    g = drawn(*wanted.shape, seed=2)

    def backward(x, weight, g):
        return jax.vjp(program, x, weight)[1](g)

    for got, want in zip(compiled(backward, x, weight, g)(x, weight, g), pull(g)):
        np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize("skipped", [0, 2])
def test_moments_and_their_gradient(skipped):
    y = 3 + drawn(2, 12, 2, 3, 4) * jnp.linspace(1, 5, 12).reshape(1, 12, 1, 1, 1)
    program = shared(
        lambda y: halo.moments(y, skipped, SPACE), 1, (PartitionSpec(), PartitionSpec())
    )
    forward = compiled(program, y)
    assert len(re.findall(r"= \S+ all-gather(?:-start)?\(", forward.as_text())) == 1
    counted = np.asarray(y)[:, skipped:].astype(np.float64)
    mean, variance = forward(y)
    np.testing.assert_allclose(mean, counted.mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance, counted.var((1, 2, 3)), rtol=1e-5)

    def normed(y, moments):
        mean, variance = (m.reshape(2, 1, 1, 1, 4) for m in moments)
        return ((y - mean) * jax.lax.rsqrt(variance)) ** 3

    split = shared(lambda y: normed(y, halo.moments(y, skipped, SPACE)), 1)
    got = compiled(jax.grad(lambda y: (split(y) * y).sum()), y)(y)

    def one(y):
        return (normed(y, blocks.moments(y[:, skipped:])) * y).sum()

    np.testing.assert_allclose(got, compiled(jax.grad(one), y)(y), atol=2e-3, rtol=2e-4)


def test_low_planes_of_the_first_device_alone_are_cleared():
    x = drawn(1, 8, 2, 2, 1)
    program = shared(lambda x: halo.cleared(x, (2, 1, 2), SPACE), 1)
    np.testing.assert_array_equal(program(x), clear_low_planes(x, (2, 1, 2)))


def test_whole_and_parted_again():
    x = drawn(1, 8, 1, 1, 2)
    program = shared(lambda x: halo.own_part(halo.whole(x, SPACE) ** 2, SPACE), 1)
    np.testing.assert_array_equal(program(x), x**2)
    np.testing.assert_allclose(jax.grad(lambda x: program(x).sum())(x), 2 * x)
    with pytest.raises(
        InputError, match="8 planes in x are not shared evenly by 3 dev"
    ):
        halo.own_part(x, halo.SplitAxis("space", 3))


def test_levels_of_few_planes_are_whole():
    cubes = ((2, 2, 2),) * 4
    kernels = ((3, 3, 3),) * 5
    # 128, 64, 32 | 16, 8 and 256, 128, 64, 32 | 16.
    assert halo.levels(128, cubes, kernels, SPACE) == [SPACE] * 3 + [None] * 2
    assert halo.levels(256, cubes, kernels, SPACE) == [SPACE] * 4 + [None]
    # Once whole, always whole; a level that keeps its planes changes nothing.
    flat = ((2, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert halo.levels(32, flat, kernels, SPACE) == [SPACE] + [None] * 4


@pytest.mark.parametrize(
    "planes, kernel, size, message",
    [
        (16, 3, 4, "a crop of 16 planes in x or fewer is not split"),
        (
            72,
            3,
            8,
            "72 planes in x at level 0, which 8 devices .* before a stride of 2",
        ),
        (80, 3, 8, "40 planes in x at level 1, which 8 devices .* cannot share"),
        (64, 9, 16, "64 planes in x at level 0, which 16 devices"),
    ],
)
def test_crops_that_cannot_be_split_are_refused(planes, kernel, size, message):
    space, cubes = halo.SplitAxis("space", size), ((2, 2, 2),) * 4
    with pytest.raises(InputError, match=message):
        halo.levels(planes, cubes, ((kernel,) * 3,) * 5, space)
