"""What a network was trained on, where it is to predict something else.

Nothing is refused: a network may well be tried on other data. PyTC and BANIS predict without a
word at any resolution.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nisbjax.config import flatten
from nisbjax.keys import determines
from nisbjax.typing import Config

_FAR = 0.1  # of a voxel's size along an axis
_GREY = ("normalize", "normalize_per", "percentiles", "grey_range")
_GREY += ("clahe_tile", "clahe_clip", "invert")


def differences(
    used: Mapping[str, Any], config: Config, image: str, said: Sequence[float] = ()
) -> list[str]:
    """A line for each thing that the training had otherwise.

    Args:
      used: the flat configuration in the checkpoint; keys that it lacks are not compared.
      config: by which is predicted.
      image: that is predicted, for the lines.
      said: size of its voxels x y z [nm], as the file has it; () for
        `data.voxel_size_nm`.
    """
    size = tuple(map(float, said or config.data.voxel_size_nm))
    trained = _sizes(used)
    lines = []
    if trained and not any(_near(size, each) for each in trained):
        seen = " and ".join(_by(each) for each in trained)
        lines.append(
            f"{image} has voxels of {_by(size)} nm, and the network was trained at {seen} nm: "
            "expect little of it, or resample the image"
        )
    if used.get("data.train.sources"):  # of several normalisations, maybe
        return lines
    now = flatten(config)
    both = determines.facts(used, "weights").keys() & determines.facts(now, "weights")
    for name in _GREY:
        key = f"data.{name}"
        if (key in both or name == "invert") and used.get(key, now[key]) != now[key]:
            lines.append(
                f"{key} is {now[key]}, and the network was trained with {used[key]}; set it "
                "as in training, unless the image asks for another"
            )
    return lines


def _sizes(used: Mapping[str, Any]) -> list[tuple[float, ...]]:
    """Sizes of voxels that a training had."""
    own = used.get("data.voxel_size_nm")
    said = [dict(parts) for _, *parts in used.get("data.train.sources", ())]
    every = [each.get("voxel_size_nm", own) for each in said] or [own]
    return list(dict.fromkeys(tuple(map(float, each)) for each in every if each))


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= _FAR * b for a, b in zip(one, other, strict=True))


def _by(size: Sequence[float]) -> str:
    return " x ".join(f"{each:g}" for each in size)
