"""Blocks whose operations are chosen, against the plain blocks and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.models import blocks
from nisbjax.models.kernels import fused
from nisbjax.models.kernels.choice import Kernels, use_of


class PallasKernels:
    """Takes the first Pallas kernel of every operation; interpreted on a CPU."""

    def __init__(self):
        self.names = []

    def run(self, operation, *arrays, **static):
        candidates = operation.candidates(use_of(operation, arrays, static))
        pallas = [c for c in candidates if c.name == "pallas"]
        self.names += [operation.name for _ in pallas[:1]]
        return operation.run((pallas or candidates)[0], *arrays, **static)


def parameters_of(channels, outputs, hidden, kernel=(3, 1, 3), seed=0):
    """Random; few taps, since an interpreted kernel is compiled tap by tap."""
    r = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(r.standard_normal(shape), jnp.float32)

    return {
        "conv1": {"weight": draw(*kernel, channels), "bias": draw(channels)},
        "norm": {"weight": 1 + 0.2 * draw(channels), "bias": draw(channels)},
        "conv2": {"weight": draw(channels, hidden) / 4, "bias": draw(hidden)},
        "conv3": {"weight": draw(hidden, outputs) / 4, "bias": draw(outputs)},
        "res_conv": {"weight": draw(channels, outputs) / 4, "bias": draw(outputs)},
    }


def image(shape, dtype=jnp.float32):
    values = np.random.default_rng(1).standard_normal(shape) + 2
    return jnp.asarray(values, dtype)


def error(a, b):
    a, b = (jnp.asarray(v, jnp.float32).ravel() for v in (a, b))
    return float(jnp.linalg.norm(a - b) / jnp.maximum(jnp.linalg.norm(b), 1e-3))


def compare(function, plain, x, parameters, bound):
    """Values, and gradients of a random sum of them by x and by all parameters."""
    result, pull = jax.vjp(jax.jit(function), x, parameters)
    wanted, wanted_pull = jax.vjp(jax.jit(plain), x, parameters)
    g = jax.random.normal(jax.random.key(3), wanted.shape, wanted.dtype)
    assert result.dtype == wanted.dtype and error(result, wanted) < bound
    by_x, by_parameters = pull(g)
    wanted_by_x, wanted_by_parameters = wanted_pull(g)
    # The depthwise bias is subtracted by the norm: its gradient is 0, or rounding of it.
    by_parameters["conv1"]["bias"] = wanted_by_parameters["conv1"]["bias"]
    errors = jax.tree.map(error, by_parameters, wanted_by_parameters)
    assert error(by_x, wanted_by_x) < bound
    assert max(jax.tree.leaves(errors)) < bound, errors


@pytest.mark.parametrize("remat", ["block", "expansion", "none"])
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


def first(stacked):
    return jax.tree.map(lambda leaf: leaf[0], stacked)


def last(stacked):
    return jax.tree.map(lambda leaf: leaf[-1], stacked)


@pytest.mark.parametrize("strides", [(2, 2, 2), (1, 2, 2)])
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
