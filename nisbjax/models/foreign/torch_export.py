"""Our weights as the state dict of `nnunet_mednext`, and a safetensors file of them.

The inverse of `torch_import`: names, axes and the parameter that holds nothing
(`dummy_tensor`) are the original's, so that its `load_state_dict` takes them strictly. PyTC
writes pickles of Lightning, which need its classes and run code when they are read.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32
from safetensors.numpy import save

from nisbjax.models.foreign.torch_names import is_transposed, original_names
from nisbjax.store import files

Arrays = dict[str, Float32[np.ndarray, "..."]]


def state_dict(params: Any) -> Arrays:
    """Arrays in torch's axes by the original's names.

    Args:
      params: of `MedNeXt`, float32 leaves.
    """
    found = {"dummy_tensor": np.ones(1, np.float32)}
    for tree_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = tuple(key.key for key in tree_path)
        value = np.asarray(leaf)
        names = original_names(path, value.shape)
        stacked = names[0] != ".".join(path)
        for name, part in zip(names, value if stacked else [value], strict=True):
            found[name] = np.ascontiguousarray(_turn(path, part))
    return found


def _turn(path: tuple[str, ...], value: np.ndarray) -> np.ndarray:
    """Our axes to torch's: [i o] to [o i 1 1 1], depthwise [i j k c] to [c 1 i j k]."""
    if value.ndim == 4:
        return value.transpose(3, 0, 1, 2)[:, None]
    if value.ndim == 2:
        return (value if is_transposed(path) else value.T)[..., None, None, None]
    return value


def write_safetensors(
    path: pathlib.Path, arrays: Arrays, facts: Mapping[str, str]
) -> None:
    """Writes float32 arrays; the file appears when it is complete.

    Args:
      path: of the file; its folder exists.
      arrays: by name.
      facts: that stand in the header as `__metadata__`.

    Raises:
      InputError: it cannot be written.
    """
    with files.replacing(path) as temporary:
        # Not by `save_file`, which makes errors of its own of a full disk's.
        temporary.write_bytes(_in_order(save(arrays, dict(facts))))


def _in_order(content: bytes) -> bytes:
    """The same with a sorted header: the library's order of facts is another each time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
