"""Names and shapes of a MedNeXt in torch, and the network that they describe.

Source: the state dicts of `nnunet_mednext` and of MONAI's `MedNeXt`, under the prefixes of
Lightning, DataParallel and `torch.compile`. PyTC and BANIS build the network from their
configuration and load what fits; here its size, width and kernels are read from the shapes.
"""

import re
from collections.abc import Mapping

import numpy as np

from nisbjax.errors import InputError
from nisbjax.models.mednext import LEVELS, SIZES

PREFIXES = ("model.", "module.", "_orig_mod.")
NOT_THE_NETWORK = ("loss_functions.", "dummy_tensor")
STEM = "stem.weight"
_LONGEST_NAME = 500  # characters; a MedNeXt's has some 40


def plain(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's own weights, without prefixes of what was around it.

    Raises:
      InputError: a name that is far too long, or no stem of a MedNeXt.
    """
    weights = dict(state_dict)
    longest = max(map(len, weights), default=0)
    if longest > _LONGEST_NAME:
        raise InputError(
            f"a weight's name has {longest} characters; give a checkpoint of BANIS, PyTC, "
            "nnunet_mednext or MONAI"
        )
    while STEM not in weights:
        stripped = {}
        for name, value in weights.items():
            prefix = next((p for p in PREFIXES if name.startswith(p)), "")
            stripped[name[len(prefix) :]] = value
        if stripped.keys() == weights.keys():
            raise InputError(
                f"no MedNeXt among {len(state_dict)} weights: no name ends in {STEM!r}; "
                "give a checkpoint of BANIS, PyTC, nnunet_mednext or MONAI"
            )
        weights = stripped
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith(NOT_THE_NETWORK)
    }


def from_monai(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """MONAI's names to those of `nnunet_mednext`; others stay as they are.

    Raises:
      InputError: MONAI's B, M or L, which are other networks than the original's.
    """
    if not any(name.startswith("enc_stages.") for name in weights):
        return weights
    rules = (
        (r"enc_stages\.(\d+)\.", lambda i: f"enc_block_{i}."),
        (r"down_blocks\.(\d+)\.", lambda i: f"down_{i}."),
        (r"up_blocks\.(\d+)\.", lambda i: f"up_{LEVELS - 1 - i}."),
        (r"dec_stages\.(\d+)\.", lambda i: f"dec_block_{LEVELS - 1 - i}."),
        (r"out_blocks\.(\d+)\.", lambda i: f"out_{LEVELS - i}."),
    )
    renamed = {}
    for name, value in weights.items():
        for pattern, rename in rules:
            if match := re.match(pattern, name):
                name = rename(int(match[1])) + name[match.end() :]
                break
        renamed[name] = value
    if _expansion(renamed, "down_0.") != _expansion(renamed, "enc_block_1.0."):
        raise InputError(
            "these are MONAI's MedNeXt B, M or L, whose down blocks expand as the "
            "level above and not, as the original's, as the level below: the networks "
            "differ; only S can be imported from MONAI"
        )
    return renamed


def _expansion(weights: Mapping[str, np.ndarray], block: str) -> int:
    rows, columns = _shape(weights, f"{block}conv2.weight", 5)[:2]
    return rows // columns if columns else 0


def _shape(weights: Mapping[str, np.ndarray], name: str, rank: int) -> tuple[int, ...]:
    if name not in weights or np.ndim(weights[name]) != rank:
        raise InputError(
            f"the weights are not exactly a MedNeXt's: missing {name} with {rank} axes; "
            "import the whole, unchanged state dict"
        )
    return np.shape(weights[name])


def architecture(weights: Mapping[str, np.ndarray]) -> dict:
    """Arguments of MedNeXt, read from names and shapes.

    Raises:
      InputError: none of the known sizes, or weights without the shapes of one.
    """
    width, in_channels = _shape(weights, STEM, 5)[:2]
    stages = [
        *(f"enc_block_{i}" for i in range(LEVELS)),
        "bottleneck",
        *(f"dec_block_{i}" for i in reversed(range(LEVELS))),
    ]
    kernels = tuple(
        _shape(weights, f"{stage}.0.conv1.weight", 5)[2:]
        for stage in stages[: LEVELS + 1]
    )
    expansions = tuple(_expansion(weights, f"{stage}.0.") for stage in stages)
    counts = tuple(
        len({name.split(".")[1] for name in weights if name.startswith(f"{stage}.")})
        for stage in stages
    )
    for size, table in SIZES.items():
        if table == (expansions, counts):
            break
    else:
        raise InputError(
            f"a MedNeXt of expansions {expansions} and {counts} blocks is none of "
            f"{sorted(SIZES)}; only these can be imported"
        )
    return {
        "size": size,
        "kernels": kernels,
        "in_channels": in_channels,
        "out_channels": _shape(weights, "out_0.conv_out.weight", 5)[1],
        "channels": width,
        "deep_supervision": any(name.startswith("out_1.") for name in weights),
    }


def original_names(path: tuple, shape: tuple[int, ...]) -> list[str]:
    """Original names of our parameter at `path`, one per block of a stage."""
    stage, *rest = path
    if stage.startswith(("enc_", "dec_", "bottleneck")):
        return [".".join((stage, str(j), *rest)) for j in range(shape[0])]
    return [".".join(path)]


def is_transposed(path: tuple) -> bool:
    """Whether torch has the input channels first."""
    up = str(path[0]).startswith("up_")
    return path[-2] == "conv_out" or (up and path[-2] == "res_conv")
