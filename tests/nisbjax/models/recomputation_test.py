"""Three ways to keep values for a gradient: the same gradients, in different memory."""

import functools

import jax
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.models import blocks, forward, recomputation

C, R, SIDE = 16, 48, 16
SHAPES = {"conv1": (3, 3, 3, C), "norm": (C,), "conv2": (C, R), "conv3": (R, C)}


@functools.cache
def compiled(remat):
    """Gradients of three blocks by everything, and the program that made them."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape, np.float32) / 4

    parameters = {
        name: {"weight": draw(3, *shape), "bias": draw(3, shape[-1])}
        for name, shape in SHAPES.items()
    }
    x = draw(1, SIDE, SIDE, SIDE, C)

    def loss(x, parameters):
        return (forward.stage(x, parameters, remat) ** 2).mean()

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, parameters).compile()
    return program(x, parameters), program


def test_all_three_give_the_same_gradients():
    wanted = jax.tree.leaves(compiled("none")[0])
    assert max(float(abs(leaf).max()) for leaf in wanted) > 1e-2
    for remat in ("expansion", "block"):
        for a, b in zip(jax.tree.leaves(compiled(remat)[0]), wanted):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_is_computed_again_needs_less_memory():
    sizes = [
        compiled(remat)[1].memory_analysis().temp_size_in_bytes
        for remat in recomputation.CHOICES
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


def test_an_expansion_computes_no_depthwise_convolution_again():
    """27 products and sums for each of its 16^3 x 16 values; XLA counts a loop once."""
    block, expansion, none = (
        compiled(remat)[1].cost_analysis()["flops"] for remat in recomputation.CHOICES
    )
    depthwise = 2 * 27 * SIDE**3 * C
    assert block - none > 0.9 * depthwise
    assert abs(expansion - none) < 0.1 * depthwise


@pytest.mark.parametrize("given, word", [(True, "block"), (False, "none")])
def test_a_truth_of_an_older_configuration_is_a_word(given, word):
    assert recomputation.recomputation(given) == word


@pytest.mark.parametrize("given", ["all", "", "True"])
def test_no_word_of_them(given):
    with pytest.raises(InputError, match="wanted one of block, expansion, none"):
        recomputation.again("block", blocks.block, given)
