"""The arrays of one checkpoint, by Orbax, on the devices that are asked for.

Finding a checkpoint and reading what it says need no JAX, and stand in `checkpoint`.
Lightning restores a whole state and drops what it does not want.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nisbjax.checkpoint.checkpoint import weight_items
from nisbjax.errors import InputError


def restore(checkpoint: pathlib.Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """Items of arrays, on the devices that `like` says.

    Args:
      checkpoint: its folder, as `find` gives it.
      like: of `params`, `ema` and `optimizer` those that are wanted; pytrees of arrays or
        shapes with the wanted shardings.

    Raises:
      InputError: the checkpoint is of another model or optimizer.
    """
    try:
        return {name: _read(checkpoint / name, tree) for name, tree in like.items()}
    except (ValueError, KeyError) as error:
        raise InputError(
            f"checkpoint {checkpoint} does not fit this config's model or optimizer "
            f"({str(error).splitlines()[0]}); start a new --workdir, or restore the "
            "config that wrote it"
        ) from None


def weights(checkpoint: pathlib.Path, which: str, like: Any) -> Any:
    """One item of weights alone, on the devices that `like` says.

    Args:
      checkpoint: its folder, as `find` gives it.
      which: `ema` or `raw`.
      like: pytree of arrays or shapes.

    Raises:
      InputError: another word, or the weights are of another model.
    """
    item, _ = weight_items(which)
    try:
        return _read(checkpoint / item, like)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"checkpoint {checkpoint} is of another model "
            f"({str(error).splitlines()[0]}); name the config that trained it"
        ) from None


def _read(item: pathlib.Path, like: Any) -> Any:
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(item, jax.tree.map(_abstract, like))


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    # Named, since Orbax would otherwise look for the devices and hosts that saved it.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = getattr(leaf, "sharding", None) or here
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)
