"""Networks that compile in a second, in place of MedNeXt: `use` patches `models.build`.

Tests take them by the fixtures of `conftest.py`; programs that tests start import this file.

    linear        logits = scale * (image . weight) + bias, at each voxel by itself
    one block     stem, one MedNeXt block, head: what a compute type goes through
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import small_operations

from nisbjax.models import blocks, build


class Network(NamedTuple):
    """What `models.build` gives of a network."""

    initial_params: Callable[[Mapping[str, Any], int], Any]
    make_apply: Callable[..., Callable[..., jax.Array]]


def _linear_params(arguments, seed):
    draw = jax.random.normal(jax.random.key(seed), (1, arguments["out_channels"]))
    ones = jnp.ones(arguments["out_channels"])
    return {"head": {"weight": draw, "bias": 0 * ones}, "norm": {"weight": ones}}


def _linear(arguments, dtype, *, remat, space=None, kernels=None):
    def apply(params, images):
        if kernels is not None:  # by one, if there is an operation to choose for
            one = jnp.ones(1, images.dtype)
            images = kernels.run(small_operations.PALLAS, images, one, power=1)
        head, scale = params["head"], params["norm"]["weight"]
        logits = jnp.einsum("bxyzc,co->bxyzo", images, head["weight"] * scale[None])
        return logits + head["bias"][None, None, None, None]

    return apply


def _one_block_params(arguments, seed):
    draw = np.random.default_rng(seed)

    def layer(*shape):
        weight = draw.normal(0, 0.5, shape).astype(np.float32)
        return {"weight": weight, "bias": np.zeros(shape[-1], np.float32)}

    norm = {"weight": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    block = {"conv1": layer(3, 3, 3, 4), "norm": norm}
    block |= {"conv2": layer(4, 8), "conv3": layer(8, 4)}
    head = layer(4, arguments["out_channels"])
    return {"stem": layer(1, 4), "block": block, "head": head}


def _one_block(arguments, dtype, *, remat, space=None, kernels=None):
    def apply(params, images):
        x = blocks.pointwise(images.astype(dtype), params["stem"])
        x = blocks.block(x, params["block"])
        return blocks.pointwise(x, params["head"]).astype(jnp.float32)

    return apply


LINEAR = Network(_linear_params, _linear)
ONE_BLOCK = Network(_one_block_params, _one_block)


def use(network: Network, patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Makes every network this one.

    Args:
        network: of this module.
        patch: `monkeypatch.setattr` in tests, which is taken back.
    """

    patch(build, "require_shape", lambda *_: None)  # these take all

    def abstract_params(arguments):
        return jax.tree.map(np.zeros_like, network.initial_params(arguments, 0))

    patch(build, "initial_params", network.initial_params)
    patch(build, "abstract_params", abstract_params)
    patch(build, "make_apply", network.make_apply)
