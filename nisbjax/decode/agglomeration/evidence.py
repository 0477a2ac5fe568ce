"""What affinities say for or against joining two fragments, as whole numbers.

The evidence of an edge is its logit l = log(p / (1 - p)), p clipped to [.001, .999], rounded
to 2^-20 as the mutex watershed rounds it. As whole numbers its sums depend on no order, so
not on boxes or workers either; `waterz` and `elf` sum single precision in the order in which
voxels come.
"""

import functools

import numpy as np
from jaxtyping import Int, Int32, Integer

from nisbjax.errors import InputError
from nisbjax.typing import Affinities

UNIT = 1 << 20  # of a logit of 1
BINS = 256  # of affinities, as waterz
NOTHING = np.iinfo(np.int32).min  # the code of NaN

_CLIP = 1e-3


def fixed(logit: float) -> int:
    """A logit as sums of evidence hold it."""
    return round(logit * UNIT)


def codes(
    affinities: Affinities,
) -> tuple[Integer[np.ndarray, "c x y z"], Int32[np.ndarray, " t"]]:
    """The evidence and the bin of each affinity, in one number.

    Args:
      affinities: [c x y z]; float16, float32, or uint8 meaning value / 255.

    Returns:
      Positions, and the codes that stand there: 256 times the logit in units of 2^-20, plus
      the bin of 256 that holds the affinity; `NOTHING` for NaN. Where the table is empty,
      the positions are the codes.

    Raises:
      InputError: another dtype.
    """
    if affinities.dtype == np.uint8:
        return affinities, _table(8)
    if affinities.dtype == np.float16:
        return affinities.view(np.uint16), _table(16)
    if affinities.dtype != np.float32:
        raise InputError(
            f"affinities are {affinities.dtype}; wanted float16, float32, or uint8 "
            "(value / 255)"
        )
    found = np.empty(affinities.shape, np.int32)
    for values, place in zip(affinities, found, strict=True):
        place[...] = _code(values.astype(np.float64))
    return found, np.empty(0, np.int32)


@functools.cache
def _table(bits: int) -> Int32[np.ndarray, " t"]:
    if bits == 8:
        return _code(np.arange(256) / 255)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        return _code(every.astype(np.float64))


def _code(p: np.ndarray) -> Int[np.ndarray, "..."]:
    known = ~np.isnan(p)
    p = np.where(known, p, 0.5)
    held = np.clip(p, _CLIP, 1 - _CLIP)
    logit = np.round(np.log(held / (1 - held)) * UNIT)
    place = np.floor(np.clip(p, 0, 1) * BINS).clip(0, BINS - 1)
    return np.where(known, logit * BINS + place, NOTHING).astype(np.int32)
