"""A network as a pure function of a plain pytree of parameters.

The NNX module is split once; what trains, is averaged, checkpointed and predicted with is
a nested dict of arrays under the original's names.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from nisbjax.models.mednext import MedNeXt

DESCRIPTION = ("size", "kernel_size", "in_channels", "out_channels", "channels")
DESCRIPTION += ("deep_supervision",)


def describe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the parameters' names and shapes, for a checkpoint."""
    return {name: arguments[name] for name in DESCRIPTION}


def initial_params(arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Parameters by torch's default initialisation, a function of the seed alone."""

    def draw():
        model = MedNeXt(**describe(arguments), rngs=nnx.Rngs(seed))
        return nnx.to_pure_dict(nnx.state(model))

    return jax.jit(draw)()


def abstract_params(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes and types of the parameters; computes nothing."""
    return jax.eval_shape(lambda: initial_params(arguments, 0))


def make_apply(
    arguments: Mapping[str, Any], dtype: Any, *, remat: bool
) -> Callable[[Any, Any], Any]:
    """(params, images [b x y z c]) -> logits, or their pyramid under deep supervision.

    Args:
      arguments: of `MedNeXt`, at least those of `DESCRIPTION`.
      dtype: of the computation.
      remat: whether blocks are computed again in the backward pass.
    """
    described = describe(arguments)
    model = nnx.eval_shape(
        lambda: MedNeXt(**described, remat=remat, dtype=dtype, rngs=nnx.Rngs(0))
    )
    graph = nnx.graphdef(model)

    def apply(params, images):
        network = nnx.merge(graph, params)
        if described["deep_supervision"]:
            return network.pyramid(images)
        return network(images)

    return apply
