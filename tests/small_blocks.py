"""Blocks of a few channels by kernels, and what they are compared with."""

import jax
import jax.numpy as jnp
import numpy as np

from nisbjax.models.kernels.choice import use_of


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


def first(stacked):
    return jax.tree.map(lambda leaf: leaf[0], stacked)


def last(stacked):
    return jax.tree.map(lambda leaf: leaf[-1], stacked)
