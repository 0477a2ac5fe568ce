"""Parameters are drawn as torch draws them."""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from nisbjax.models import parameters


def test_initial_weights_and_biases_are_uniform_within_the_bound():
    block = parameters.Block(
        32, 2, (3, 3, 3), 32, jnp.float32, rngs=nnx.Rngs(0), stack=(2,)
    )
    for affine, fan_in in ((block.conv1, 27), (block.conv2, 32), (block.conv3, 64)):
        bound = 1 / math.sqrt(fan_in)
        assert float(jnp.abs(affine.bias[...]).max()) <= bound
        weight = np.asarray(affine.weight[...])
        # The standard deviation is bound / sqrt(3); 5 sigma of its estimate from n
        # draws is 5 * 0.45 / sqrt(n) of it.
        spread = math.sqrt((weight**2).mean()) * math.sqrt(3) / bound
        assert np.abs(weight).max() <= bound
        assert abs(spread - 1) < 2.25 / math.sqrt(weight.size)
        assert not (weight[0] == weight[1]).any()
    assert bool((block.norm.weight[...] == 1).all())
    assert bool((block.norm.bias[...] == 0).all())
