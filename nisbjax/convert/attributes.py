"""What an output says of itself: the words of the input, for its own axes and scales.

Offsets of affinities and the vectors of other programs follow the axes as they are stored, so
they are written anew where the order changes. PyTC and BANIS copy no attributes.
"""

import json
from typing import Any

from nisbjax.convert.pyramid import Level
from nisbjax.errors import InputError
from nisbjax.offsets import parse_offsets
from nisbjax.store import axes, scales, voxel_size
from nisbjax.store.volume import Volume

ORIGIN = "voxel_offset"  # x y z, whatever the order of the axes
_OFFSETS = "offsets"
# Of a file, and of us, not of what it holds.
_LEFT_OUT = ("software", "made_of", "made_from", "stored_crc32", ORIGIN)
# Of other programs (funlib, TensorStore), one value for each axis as it is stored.
_VECTORS = ("resolution", "voxel_size", "units", "offset", "translation", "spacing")
_SIZES = ("resolution", "voxel_size", "spacing", "units")


def of_input(volume: Volume, order: str, resized: bool) -> dict[str, Any]:
    """The words of the finest scale.

    Args:
      volume: the input.
      order: of the output's axes as they are stored.
      resized: whether another voxel size was said, so that the file's are wrong.

    Raises:
      InputError: `offsets` of channels that mean nothing.
    """
    found: dict[str, Any] = {}
    for key, value in volume.attributes.items():
        if axes.is_word(key) or key in (*_LEFT_OUT, voxel_size.KEY):
            continue
        if key == _OFFSETS and "c" in volume.axes:
            value = _offsets(volume, value, order)
        elif key in _VECTORS:
            if resized and key in _SIZES:
                continue
            value = _in_order(value, volume.stored_axes, order)
        found[key] = value
    origin = _listed(volume.attributes.get(ORIGIN))
    if isinstance(origin, list) and [type(v) for v in origin] == [int] * 3:
        found[ORIGIN] = origin
    return found


def of_scale(found: dict[str, Any], level: Level) -> dict[str, Any]:
    """Those of the finest that hold for another scale; its place in its own voxels.

    A place that is no whole number of them is left out.
    """
    if not level.number:
        return dict(found)
    left_out = (*scales.OF_ONE, *_VECTORS, ORIGIN)
    kept = {key: value for key, value in found.items() if key not in left_out}
    origin = found.get(ORIGIN)
    if origin and not any(o % f for o, f in zip(origin, level.factors, strict=True)):
        kept[ORIGIN] = [o // f for o, f in zip(origin, level.factors, strict=True)]
    return kept


def _offsets(volume: Volume, value: Any, order: str) -> list[list[int] | None]:
    """Offsets of the channels, from the order in which the input names them."""
    named = _spatial(volume.stored_axes) or "xyz"
    channels = volume.shape[volume.axes.index("c")]
    try:
        parsed = parse_offsets(value, channels, named)
    except InputError as problem:
        raise InputError(f"{volume.source}: {problem}") from None
    places = ["xyz".index(a) for a in _spatial(order)]
    return [offset and [offset[place] for place in places] for offset in parsed]


def _in_order(value: Any, named: str, order: str) -> Any:
    """A vector of all axes or of those of space; anything else stays as it is."""
    value = _listed(value)
    if not isinstance(value, list) or not named:
        return value
    if len(value) == len(named) and set(order) <= set(named):
        return [value[named.index(a)] for a in order]
    if len(value) == 3:
        return [value[_spatial(named).index(a)] for a in _spatial(order)]
    return value


def _spatial(letters: str) -> str:
    return "".join(a for a in letters if a in "xyz")


def _listed(value: Any) -> Any:
    """HDF5 has lists as text."""
    if not isinstance(value, str) or not value.startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
