"""An operation whose candidates are wrong, slow or broken in every way that is known.

scaled(x, weight, power=p) = x * weight^p, whose sum in float32 is easily looked over
"""

import jax
import jax.numpy as jnp

from nisbjax.models.kernels.choice import Candidate, Use

XLA = Candidate("xla")


class Scaled:
    """x * weight ** power; `ways` are the candidates besides XLA as it is.

    Attributes:
      name: of the operation.
      ran: names of the candidates that were asked to run, traced or not.
    """

    name = "scaled"

    def __init__(self, **ways):
        self.ways = ways
        self.ran = []

    def candidates(self, use):
        return [XLA, *(Candidate(name) for name in self.ways)]

    def run(self, candidate, x, weight, *, power):
        self.ran.append(candidate.name)
        way = self.ways.get(candidate.name, right)
        return way(x, weight, power)

    def example(self, use, key):
        keys = jax.random.split(key, len(use.shapes))
        return tuple(
            jax.random.normal(k, shape).astype(dtype)
            for k, shape, dtype in zip(keys, use.shapes, use.dtypes)
        )


def right(x, weight, power):
    return x * (weight**power).reshape((1,) * (x.ndim - 1) + weight.shape)


def use(*shape, dtype="float32", power=2):
    """Of an x of this shape and one weight for each of its last axis."""
    return Use("scaled", (shape, shape[-1:]), (dtype, dtype), (("power", power),))


def arrays(*shape, dtype="float32"):
    return jnp.ones(shape, dtype), jnp.full(shape[-1:], 3, dtype)
