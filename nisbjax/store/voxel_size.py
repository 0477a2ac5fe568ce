"""Sizes of voxels as files say them: numbers with units, in any order of axes, in nm.

What has no unit is not believed: programs write 1 for what they do not know. PyTC reads no
voxel size from files.
"""

import math
from collections.abc import Sequence
from typing import Any

from nisbjax.errors import InputError

_NM = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "å": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "µm": 1e3,  # the sign for micro
    "μm": 1e3,  # the Greek letter
    "micron": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "m": 1e9,
    "meter": 1e9,
}
KEY = "voxel_size_nm"  # of what is read, x y z, whatever the file calls it


def unit_nm(unit: Any) -> float | None:
    """Nanometres of a unit of length; None for one that is not known, or none."""
    if not isinstance(unit, str):
        return None
    name = unit.strip().lower().replace("metre", "meter")
    return _NM.get(name) or _NM.get(name.removesuffix("s"))


def from_axes(
    letters: str, sizes: Sequence[float | int], units: Sequence[Any]
) -> list[float] | None:
    """Sizes [nm] along x, y and z; None where a unit or an axis of space is missing.

    Args:
      letters: of the axes, one each.
      sizes: along them.
      units: of the sizes.
    """
    found = {}
    for letter, size, unit in zip(letters, sizes, units, strict=True):
        nm = unit_nm(unit)
        if letter in "xyz" and nm is not None:
            found[letter] = float(f"{size * nm:.12g}")  # .004 um are 4 nm
    return [found[a] for a in "xyz"] if len(found) == 3 else None


def require_sizes(source: Any, word: str, value: Any, count: int) -> list[float]:
    """Positive numbers, one for each axis.

    Args:
      source: path, for messages.
      word: of the attribute.
      value: as the file has it.
      count: of axes.

    Raises:
      InputError: anything else.
    """
    good = isinstance(value, list | tuple) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < math.inf
        for v in value
    )
    if not good or len(value) != count:
        text = ascii(value)
        text = text if len(text) <= 80 else text[:77] + "..."
        raise InputError(
            f"{source} has the {word} {text}; wanted {count} positive numbers, one for "
            "each axis; mend or remove it"
        )
    return [float(v) for v in value]
