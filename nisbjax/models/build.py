"""A network as a pure function of a plain pytree of parameters.

The NNX module is split once; what trains, is averaged, checkpointed and predicted with is
a nested dict of arrays under the original's names (`enc_block_0.conv1.weight`).
"""

import functools
import math
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nisbjax.errors import InputError
from nisbjax.models.halo import SplitAxis, levels
from nisbjax.models.kernels.choice import Kernels, Recorder
from nisbjax.models.mednext import MedNeXt
from nisbjax.models.recomputation import recomputation
from nisbjax.typing import Triple

DESCRIPTION = ("size", "kernel_size", "in_channels", "out_channels", "channels")
DESCRIPTION += ("deep_supervision",)
# Compute types by their words; training takes all, prediction some (infer/compute_dtype).
COMPUTE = {"fp16": jnp.float16, "bf16": jnp.bfloat16, "fp32": jnp.float32}


def describe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the parameters' names and shapes, for a checkpoint."""
    return {name: arguments[name] for name in DESCRIPTION}


def abstract_params(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes and types of the parameters; computes nothing."""
    return nnx.to_pure_dict(nnx.state(_abstract_model(**describe(arguments))))


def initial_params(arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Parameters by torch's default initialisation, float32 arrays on the host.

    The distribution of `MedNeXt(rngs=...)`, drawn by numpy as a function of (seed, name):
    nothing is compiled, and the values are the same on every kind of device.
    """
    return _drawn(abstract_params(arguments), (), seed)


def make_apply(
    arguments: Mapping[str, Any],
    dtype: Any,
    *,
    remat: str | bool,
    space: SplitAxis | None = None,
    kernels: Kernels | Recorder | None = None,
) -> Callable[[Any, Any], Any]:
    """(params, images [b x y z c]) -> logits, or their pyramid under deep supervision.

    Equal arguments give the same function, so what JAX traced and compiled of it for one
    stage serves the next.

    Args:
      arguments: of `MedNeXt`, at least those of `DESCRIPTION`.
      dtype: of the computation; float32 is all of float32, also in the products, which
        JAX by itself computes in TF32 on a GPU.
      remat: what the backward pass computes again of each block, see `MedNeXt`.
      space: mesh axis over which x is split, see `MedNeXt`; None for whole images.
      kernels: by which its operations are computed, or who notes them; None for XLA.
    """
    described = describe(arguments)
    remat = recomputation(remat)
    return _make_apply(
        jnp.dtype(dtype), remat=remat, space=space, operations=kernels, **described
    )


@functools.lru_cache(maxsize=8)
def _make_apply(
    dtype: Any, *, deep_supervision: bool, **others: Any
) -> Callable[[Any, Any], Any]:
    graph = nnx.graphdef(
        _abstract_model(dtype=dtype, deep_supervision=deep_supervision, **others)
    )
    full = dtype == jnp.float32

    def apply(params, images):
        network = nnx.merge(graph, params)
        with jax.default_matmul_precision("float32") if full else nullcontext():
            return network.pyramid(images) if deep_supervision else network(images)

    return apply


def require_shape(arguments: Mapping[str, Any], shape: Triple) -> None:
    """Refuses crops that the network does not take; nothing is traced.

    Args:
      arguments: of `MedNeXt`.
      shape: of an image, x y z.

    Raises:
      InputError: as `MedNeXt.require_shape`.
    """
    _abstract_model(**describe(arguments)).require_shape(shape)


def require_parts(arguments: Mapping[str, Any], planes: int, parts: int) -> None:
    """Refuses crops of so many planes in x that the network cannot take in parts.

    Raises:
      InputError: see `halo.levels`; or a head's logits are fewer than the parts.
    """
    model = _abstract_model(**describe(arguments))
    space = SplitAxis("space", parts)
    split = levels(planes, model.strides, model.kernels, space)
    if model.deep_supervision and split[-1] is None:
        coarsest = planes // math.prod(stride[0] for stride in model.strides)
        if coarsest % parts:
            raise InputError(
                f"under model.deep_supervision {parts} devices (train.mesh, space) cannot "
                f"share the {coarsest} planes of the coarsest logits; choose fewer devices"
            )


@functools.lru_cache(maxsize=8)  # a second to trace; nobody writes to it
def _abstract_model(**arguments: Any) -> Any:
    return nnx.eval_shape(lambda: MedNeXt(**arguments, rngs=nnx.Rngs(0)))


def _drawn(tree: Mapping[str, Any], path: tuple[str, ...], seed: int) -> dict[str, Any]:
    if "weight" not in tree:
        return {name: _drawn(part, (*path, name), seed) for name, part in tree.items()}
    if path[-1] == "norm":
        return {
            "weight": np.ones(tree["weight"].shape, np.float32),
            "bias": np.zeros(tree["bias"].shape, np.float32),
        }
    bound = 1 / math.sqrt(_fan_in(path, tree["weight"].shape))
    layer = {}
    for name in ("weight", "bias"):
        stream = zlib.crc32(".".join((*path, name)).encode())
        draw = np.random.default_rng((seed, stream))
        values = draw.uniform(-bound, bound, tree[name].shape)
        layer[name] = values.astype(np.float32)
    return layer


def _fan_in(path: tuple[str, ...], weight_shape: tuple[int, ...]) -> int:
    """Inputs of one output, as torch counts: on the output side of transposed layers."""
    if path[-1] == "conv1":  # depthwise: [... i j k c]
        return math.prod(weight_shape[-4:-1])
    transposed = path[-1] == "conv_out" or (
        path[-1] == "res_conv" and path[0].startswith("up_")
    )
    return weight_shape[-1] if transposed else weight_shape[-2]
