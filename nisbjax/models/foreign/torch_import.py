"""Foreign MedNeXt weights to ours, every leaf filled and every key used, or one error.

Source: the state dicts of `nnunet_mednext` and of MONAI's `MedNeXt`, and what BANIS and
PyTC put around them. PyTC's own loader takes what fits (`strict=False`); here a name
that is missing, left over or of another shape is an error, and all are listed.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from nisbjax.errors import InputError
from nisbjax.models.foreign import torch_file, torch_names
from nisbjax.models.mednext import KERNEL_SIZES, MedNeXt

NESTS = ("state_dict", "model_state_dict", "network_weights", "model")


@dataclasses.dataclass(frozen=True)
class Foreign:
    """The networks in a file of another program; arrays are read when asked for.

    Attributes:
      path: of the file.
      weights: `raw` and, where the file keeps an average, `ema`: tensors by name.
      step: optimizer steps behind them; 0 where the file does not say.
    """

    path: Path
    weights: Mapping[str, Mapping[str, torch_file.Tensor]]
    step: int = 0

    def read(self, which: str) -> dict[str, np.ndarray]:
        """Arrays by name of `raw`, `ema`, or `auto`: the average where there is one.

        Raises:
          InputError: another word, no such weights, or a file that is damaged.
        """
        if which not in ("auto", "ema", "raw"):
            raise InputError(f"weights {which!r} is not one of ('auto', 'ema', 'raw')")
        if which == "auto":
            which = "ema" if "ema" in self.weights else "raw"
        if which not in self.weights:
            raise InputError(
                f"{self.path} has no {which} weights (it has "
                f"{', '.join(sorted(self.weights)) or 'none'}); give a checkpoint with "
                "a state dict, or choose other weights"
            )
        return {
            name: torch_file.read_array(self.path, name, tensor)
            for name, tensor in self.weights[which].items()
        }


def open_foreign(path: str | Path) -> Foreign:
    """A file of torch (`.ckpt`, `.pt`, `.pth`), safetensors or npz, without torch.

    Of a Lightning checkpoint `raw` is the network's `state_dict`, `ema` the averaged
    weights of PyTC's EMA callback, and its `global_step` the step. Where Lightning's own
    WeightAveraging (2.6 and later) was at work, `state_dict` is the average and
    `current_model_state` the network. No code of the file runs.

    Raises:
      InputError: no such file, an unknown kind, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is no file; give the checkpoint to import")
    if path.suffix == ".safetensors":
        return Foreign(path, {"raw": torch_file.read_safetensors(path)})
    if path.suffix == ".npz":
        return Foreign(path, {"raw": torch_file.read_npz(path)})
    content = torch_file.read_torch(path)
    if not isinstance(content, dict):
        return Foreign(path, {})
    found = {"raw": next((content[k] for k in NESTS if k in content), content)}
    if "current_model_state" in content:  # of Lightning's WeightAveraging
        found = {
            "raw": content["current_model_state"],
            "ema": content.get("state_dict"),
        }
    callbacks = content.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, dict) else ():
        ema = isinstance(name, str) and name.startswith("EMAWeightsCallback")
        if ema and isinstance(state, dict):
            if found.get("ema") is not None:
                raise InputError(
                    f"{path} has two averages, of WeightAveraging and of {name[:60]}; "
                    "save one of them as a plain state dict and import that"
                )
            found["ema"] = state.get("ema_state")
    weights = {kind: _tensors(state) for kind, state in found.items()}
    step = content.get("global_step", 0)
    return Foreign(
        path,
        {kind: tensors for kind, tensors in weights.items() if tensors},
        step if isinstance(step, int) and 0 < step < 1 << 31 else 0,
    )


def _tensors(state: object) -> dict[str, torch_file.Tensor]:
    return {
        name: value
        for name, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(name, str) and isinstance(value, torch_file.Tensor)
    }


def read_state_dict(path: str | Path, weights: str = "auto") -> dict[str, np.ndarray]:
    """Weights by name from a file, see `open_foreign`.

    Args:
      path: of the file.
      weights: "raw" for the network's own, "ema" for their average, "auto" for the
        average where there is one.

    Raises:
      InputError: no such file, an unknown kind, damaged, or without such weights.
    """
    return open_foreign(path).read(weights)


def to_model(state_dict: Mapping[str, np.ndarray]) -> MedNeXt:
    """A MedNeXt with these weights (float32 arrays under the original or MONAI names).

    Size, kernels, width, channels and heads come from the shapes; strides are 2, as in
    every published network. Prefixes of Lightning, DataParallel and `torch.compile` are
    stripped.

    Raises:
      InputError: no MedNeXt, none of the known sizes, or not exactly its names.
    """
    weights = torch_names.from_monai(torch_names.plain(state_dict))
    model = nnx.eval_shape(
        lambda: MedNeXt(**torch_names.architecture(weights), rngs=nnx.Rngs(0))
    )
    graph, state = nnx.split(model)
    flat = nnx.to_flat_state(state)
    wanted = {
        path: torch_names.original_names(path, variable.shape)
        for path, variable in flat
    }
    names = {name for sources in wanted.values() for name in sources}
    missing, left_over = sorted(names - set(weights)), sorted(set(weights) - names)
    if missing or left_over:
        raise InputError(
            f"the weights are not exactly a MedNeXt's: {_listed('missing', missing)}, "
            f"{_listed('left over', left_over)}; import the whole, unchanged state dict"
        )
    filled = []
    for path, variable in flat:
        stacked = str(path[0]).startswith(("enc_", "dec_", "bottleneck"))
        shape = _original_shape(path, variable.shape[1:] if stacked else variable.shape)
        values = [_read(weights, name, shape) for name in wanted[path]]
        values = [_turn(path, value) for value in values]
        value = np.stack(values) if stacked else values[0]
        filled.append((path, variable.replace(jnp.asarray(value, variable.dtype))))
    return nnx.merge(graph, nnx.from_flat_state(filled))


def describe(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the configuration calls the network of these weights (`build.DESCRIPTION`).

    Raises:
      InputError: no MedNeXt, or kernels that the configuration has no words for.
    """
    described = torch_names.architecture(
        torch_names.from_monai(torch_names.plain(state_dict))
    )
    kernels = described.pop("kernels")
    sizes = {size for kernel in kernels for size in kernel}
    if len(sizes) > 1 or not sizes <= set(KERNEL_SIZES):
        raise InputError(
            f"the network's kernels are {kernels}; a checkpoint has one size, 3, 5 or 7, "
            "for all: use `torch_import.to_model` from Python"
        )
    return {**described, "kernel_size": sizes.pop()}


def _read(
    weights: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    """One weight in float32, of the shape that the original gives it."""
    value = np.asarray(weights[name])
    if value.shape != shape:
        raise InputError(
            f"{name} has shape {value.shape}, wanted {shape}: it does not fit the network "
            "that the other weights describe; import an unchanged state dict"
        )
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        single = value.astype(np.float32) if value.dtype.kind == "f" else value
    if value.dtype.kind != "f" or not np.isfinite(single).all():
        raise InputError(
            f"{name} ({value.dtype}) is not all finite floating-point numbers; "
            "import the checkpoint of a run that did not diverge"
        )
    return single


def _original_shape(path: tuple, shape: tuple[int, ...]) -> tuple[int, ...]:
    """torch's shape of one of our parameters, see `_turn`."""
    if len(shape) == 4:
        i, j, k, c = shape
        return c, 1, i, j, k
    if len(shape) == 2:
        return *(shape if torch_names.is_transposed(path) else shape[::-1]), 1, 1, 1
    return shape


def _turn(path: tuple, value: np.ndarray) -> np.ndarray:
    """torch's axes to ours: [o i] to [i o], depthwise [c 1 i j k] to [i j k c]."""
    if value.ndim != 5:
        return value
    if path[-2] == "conv1":
        return value[:, 0].transpose(1, 2, 3, 0)
    value = value[:, :, 0, 0, 0]
    return value if torch_names.is_transposed(path) else value.T


def _listed(label: str, names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} {label}" + (f" ({shown})" if names else "")
