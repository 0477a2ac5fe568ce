"""An operation whose candidates are wrong, slow or broken, in place of a network's kernels.

scaled(x, weight, power=p) = x * weight^p, one weight for each of x's last axis
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from nisbjax.models.kernels.choice import Candidate, Use

XLA = Candidate("xla")


def right(x, weight, power):
    return x * (weight**power).reshape((1,) * (x.ndim - 1) + weight.shape)


def slow(x, weight, power):
    """The same result milliseconds later: no load of the machine hides that."""
    small = lax.fori_loop(0, 300_000, lambda i, v: jnp.sin(v), jnp.float32(1))
    return right(x, weight, power) * (small < 2).astype(x.dtype)


class Scaled:
    """The operation.

    Args:
      xla: its first candidate.
      ways: the others, by name.

    Attributes:
      name: of the operation.
      ran: names of the candidates that ran or were traced.
    """

    name = "scaled"

    def __init__(self, xla=right, **ways):
        self.ways = {"xla": xla, **ways}
        self.ran = []

    def candidates(self, use):
        return [Candidate(name) for name in self.ways]

    def run(self, candidate, x, weight, *, power):
        self.ran.append(candidate.name)
        return self.ways[candidate.name](x, weight, power)

    def example(self, use, key):
        # The library's random numbers take half a second to compile.
        first = jax.random.key_data(key)[-1].astype(jnp.float32)
        return tuple(
            jnp.sin(first + jnp.arange(math.prod(shape)) + 1)
            .reshape(shape)
            .astype(dtype)
            for shape, dtype in zip(use.shapes, use.dtypes)
        )


# For a network: a Pallas kernel by its name, the same values as XLA's.
PALLAS = Scaled(pallas=lambda x, weight, power: right(x, weight, power) * 1)


def use(*shape, dtype="float32", power=2):
    """Of an x of this shape."""
    return Use("scaled", (shape, shape[-1:]), (dtype, dtype), (("power", power),))


def arrays(*shape, dtype="float32"):
    return jnp.ones(shape, dtype), jnp.full(shape[-1:], 3, dtype)
