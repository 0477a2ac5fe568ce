"""Exact percentiles of a volume that does not fit memory, by its bits.

The bits of a number, turned so that they are ordered as the number is, are counted 16 at a
time: one pass over the volume for 8 and 16 bits, two for 32, four for 64. So an outlier
costs no precision, as it does in a histogram between the extremes. The value between two
ranks is interpolated as `numpy.percentile` does, which PyTC calls on the whole array.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt

from nisbjax.geometry import box_grid, fit_box
from nisbjax.store.volume import Volume

_BOX_BYTES = 1 << 27  # read at once
_DIGIT = 16  # bits that are counted in one pass


class Summary(NamedTuple):
    """Of the finite values; NaN for `low` and `high` where there is none."""

    low: float
    high: float
    finite: int


def extremes(volume: Volume) -> Summary:
    """Smallest and largest finite value, and the number of finite ones."""
    low, high, count = math.inf, -math.inf, 0
    for values in boxes_of(volume):
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            count += values.size
    return Summary(low, high, count) if count else Summary(math.nan, math.nan, 0)


def percentiles(
    volume: Volume, wanted: Sequence[float | int], count: int
) -> list[float]:
    """Percentiles of the finite values.

    Args:
      volume: integers or floats of up to 64 bits.
      wanted: in [0, 100].
      count: of the finite values, at least 1.
    """
    places = [(count - 1) * p / 100 for p in wanted]
    ranks = sorted({rank for p in places for rank in (math.floor(p), math.ceil(p))})
    value = dict(zip(ranks, _at_ranks(volume, ranks), strict=True))
    found = []
    for place in places:
        below, above = value[math.floor(place)], value[math.ceil(place)]
        found.append(below + (above - below) * (place - math.floor(place)))
    return found


def _at_ranks(volume: Volume, ranks: Sequence[int]) -> list[float]:
    """The values that stand at some places of the sorted volume."""
    bits = 8 * volume.dtype.itemsize
    digit = min(bits, _DIGIT)
    known = [0] * len(ranks)  # the leading bits of each value
    left = list(ranks)  # its place among the values with these leading bits
    for shift in range(bits - digit, -1, -digit):
        tables = {prefix: np.zeros(1 << digit, np.int64) for prefix in known}
        for values in boxes_of(volume):
            keys = _ordered_bits(values)
            leading = keys >> np.uint64(shift + digit) if shift + digit < bits else None
            for prefix, table in tables.items():
                own = keys if leading is None else keys[leading == prefix]
                low_bits = (own >> np.uint64(shift)) & np.uint64((1 << digit) - 1)
                table += np.bincount(low_bits.astype(np.int64), minlength=1 << digit)
        for i, prefix in enumerate(known):
            until = np.cumsum(tables[prefix])
            place = int(np.searchsorted(until, left[i], side="right"))
            left[i] -= int(until[place - 1]) if place else 0
            known[i] = prefix << digit | place
    return [_value(key, volume.dtype) for key in known]


def _ordered_bits(values: Shaped[np.ndarray, " n"]) -> UInt[np.ndarray, " n"]:
    """Unsigned numbers in the order of the values."""
    size = values.dtype.itemsize
    plain = values.view(f"u{size}").astype(np.uint64)
    if values.dtype.kind == "u":
        return plain
    sign = np.uint64(1 << (8 * size - 1))
    if values.dtype.kind == "i":
        return plain ^ sign
    negative = (plain & sign) != 0
    everything = np.uint64((1 << 8 * size) - 1)
    return np.where(negative, plain ^ everything, plain | sign)


def _value(key: int, dtype: np.dtype) -> float:
    """The number whose ordered bits these are."""
    size = dtype.itemsize
    sign, everything = 1 << (8 * size - 1), (1 << 8 * size) - 1
    if dtype.kind == "i":
        key ^= sign
    elif dtype.kind == "f":
        key ^= sign if key & sign else everything
    return float(np.array(key, f"u{size}").view(dtype.newbyteorder("=")))


def boxes_of(volume: Volume) -> Iterator[Shaped[np.ndarray, " n"]]:
    """Finite values of a volume, box by box."""
    per_voxel = volume.dtype.itemsize * (volume.store.size / _voxels(volume))
    shape = fit_box(
        volume.spatial_shape, volume.spatial_chunks, per_voxel, float(_BOX_BYTES)
    )
    native = volume.dtype.newbyteorder("=")
    for box in box_grid(volume.spatial_shape, shape):
        values = np.ascontiguousarray(volume.read(box), native).reshape(-1)
        yield values if native.kind != "f" else values[np.isfinite(values)]


def _voxels(volume: Volume) -> int:
    return math.prod(volume.spatial_shape)
