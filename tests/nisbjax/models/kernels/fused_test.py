"""Blocks whose operations are chosen, against the plain blocks and their derivatives."""

import jax
import jax.numpy as jnp
import pytest
from small_blocks import PallasKernels, compare, first, image, last, parameters_of

from nisbjax.models import blocks
from nisbjax.models.kernels import fused
from nisbjax.models.kernels.choice import Kernels


@pytest.mark.parametrize("remat", ["block", "expansion"])
def test_a_stage(remat):
    parameters = parameters_of(16, 16, 32)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), parameters, parameters)
    compare(
        lambda x, p: fused.stage(x, p, Kernels(), remat),
        lambda x, p: blocks.block(blocks.block(x, first(p)), last(p)),
        image((2, 4, 5, 6, 16)),
        stacked,
        1e-4,
    )


@pytest.mark.parametrize(
    "dtype, bound",
    [("float32", 1e-4), pytest.param("float16", 1e-2, marks=pytest.mark.slow)],
)
def test_a_stage_of_kernels(dtype, bound):
    """Of values 2 +- 1, float16 keeps 1e-3; sums of the gradient less."""
    kernels = PallasKernels()
    stacked = jax.tree.map(lambda leaf: leaf[None], parameters_of(16, 16, 32))
    compare(
        lambda x, p: fused.stage(x, p, kernels, "block"),
        lambda x, p: blocks.block(x, first(p)),
        image((2, 5, 5, 6, 16), jnp.dtype(dtype)),
        stacked,
        bound,
    )
    names = {"convolve", "kernel_gradient"}
    names |= {"mix", "mix_input_gradient", "mix_weight_gradients"}
    assert names == set(kernels.names)


@pytest.mark.parametrize(
    "strides", [pytest.param((2, 2, 2), marks=pytest.mark.slow), (1, 2, 2)]
)
@pytest.mark.parametrize(
    "kernels",
    [Kernels(), pytest.param(PallasKernels(), marks=pytest.mark.slow)],
    ids=["xla", "pallas"],
)
def test_down_and_up(kernels, strides):
    parameters = parameters_of(16, 32, 32)
    compare(
        lambda x, p: fused.down_block(x, p, strides, kernels, "block"),
        lambda x, p: blocks.down_block(x, p, strides),
        image((1, 4, 6, 8, 16)),
        parameters,
        1e-4,
    )
    compare(
        lambda x, p: fused.up_block(x, p, strides, kernels, "none"),
        lambda x, p: blocks.up_block(x, p, strides),
        image((1, 3, 4, 5, 16)),
        parameters,
        1e-4,
    )


def products(jaxpr):
    """Precisions of all products of a program, those of its inner ones too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            if hasattr(inner, "jaxpr"):
                inner = inner.jaxpr
            if hasattr(inner, "eqns"):
                yield from products(inner)


def test_float32_is_all_of_float32_in_gradients_too():
    """They are traced when their caller has left the context that forbids TF32."""
    parameters = parameters_of(16, 16, 32)
    stacked = jax.tree.map(lambda leaf: leaf[None], parameters)

    def loss(x, parameters, stacked):
        with jax.default_matmul_precision("float32"):
            x = fused.stage(x, stacked, Kernels(), "block")
            x = fused.down_block(x, parameters, (2, 2, 2), Kernels(), "none")
            return fused.up_block(x, parameters, (2, 2, 2), Kernels(), "none").sum()

    gradient = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))
    found = set(products(gradient(image((1, 4, 4, 4, 16)), parameters, stacked).jaxpr))
    assert found == {(jax.lax.Precision.HIGHEST,) * 2}
