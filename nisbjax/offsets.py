"""Affinity offsets: which two voxels an edge joins and where it is stored.

Channel i holds the edge from v to v + offset_i. BANIS stores it at v ("source"), DeepEM
and PyTC's SNEMI3D recipe at v + offset_i ("destination"); nisbjax keeps "source" in
memory and on disk, and turns others at the reader.
"""

import json
from typing import Any

from nisbjax.errors import InputError
from nisbjax.typing import Triple

SHORT_RANGE: tuple[Triple, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
OFFSETS_6: tuple[Triple, ...] = (*SHORT_RANGE, (10, 0, 0), (0, 10, 0), (0, 0, 10))

Slices = tuple[slice, slice, slice]


def edge_slices(shape: Triple, offset: Triple) -> tuple[Slices, Slices]:
    """Slices of the voxels at both ends of every edge that stays inside the volume.

    Args:
      shape: of the volume, x y z.
      offset: of the edge; components may be negative.

    Returns:
      Slices of the sources v and of the destinations v + offset; an offset longer than the
      volume gives empty slices.
    """
    source, destination = [], []
    for size, step in zip(shape, offset, strict=True):
        low, high = max(0, -step), max(0, size - max(0, step))
        high = max(low, high)
        source.append(slice(low, high))
        destination.append(
            slice(low + step, high + step) if high > low else slice(0, 0)
        )
        if high == low:
            source[-1] = slice(0, 0)
    return tuple(source), tuple(destination)


def context(offsets: tuple[Triple, ...]) -> tuple[Triple, Triple]:
    """Voxels that a crop needs before and behind it, so that all its edges have both ends.

    Returns:
      (before, behind), each x y z: (0, 0, 0) and (10, 10, 10) for `OFFSETS_6`, PyTC's
      `target_context`.
    """
    x, y, z = (max(0, *(-o[axis] for o in offsets)) for axis in range(3))
    before = x, y, z
    x, y, z = (max(0, *(o[axis] for o in offsets)) for axis in range(3))
    return before, (x, y, z)


def parse_offsets(
    value: Any, channels: int, order: str = "xyz"
) -> tuple[Triple | None, ...]:
    """Offsets as a file names them.

    Args:
      value: three whole numbers for each channel, or null for a channel that holds no edge;
        as lists or as JSON text.
      channels: of the file.
      order: of the numbers, some order of `xyz`: programs write them in the order of the
        array's axes.

    Returns:
      For each channel its offset, x y z, or None.

    Raises:
      InputError: anything else, the offset (0, 0, 0), or one that is there twice.
    """
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass  # said below
    given = list(value) if isinstance(value, list | tuple) else None
    if given is None or len(given) != channels:
        raise InputError(
            f"offsets are {str(value)[:80]}; wanted three whole numbers for each of its "
            f"{channels} channels; mend or remove the attribute"
        )
    found: list[Triple | None] = []
    for channel, numbers in enumerate(given):
        offset = None if numbers is None else _offset(numbers, channel, order)
        if offset is not None and offset in found:
            raise InputError(
                f"offsets name {offset} for channels {found.index(offset)} and {channel}; "
                "wanted another edge in each channel; mend or remove the attribute"
            )
        found.append(offset)
    return tuple(found)


def _offset(numbers: Any, channel: int, order: str) -> Triple:
    if isinstance(numbers, list | tuple) and len(numbers) == 3:
        plain = [
            type(n) in (int, float) and abs(n) < 2**31 and n == int(n) for n in numbers
        ]
        if all(plain) and any(numbers):
            x, y, z = (int(numbers[order.index(axis)]) for axis in "xyz")
            return x, y, z
    raise InputError(
        f"offsets name {str(numbers)[:80]} for channel {channel}; wanted three whole numbers "
        "that are not all 0; mend or remove the attribute"
    )
