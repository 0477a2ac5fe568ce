"""What each number that affinities may hold says, once for all edges that hold it.

float16 has 65,536 numbers and uint8 256, so weights and their ranks are tables that stored
bits point into, and edges are sorted by counting; numbers of float32 are found by sorting
each channel. `mwatershed` weighs and compares every edge by itself, in double precision.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int32, UInt

from nisbjax.errors import InputError
from nisbjax.typing import Affinities

# Types of few numbers, and those of their bits.
FEW = {np.dtype(np.float16): np.uint16, np.dtype(np.uint8): np.uint8}


class Weights(NamedTuple):
    """How much each value that a channel may hold says.

    Attributes:
      values: [c x y z], positions in `weights`, less the channel's `base`.
      weights: 0 or more, of attraction or repulsion as the channel does.
      base: of each channel.
    """

    values: UInt[np.ndarray, "c x y z"]
    weights: Float64[np.ndarray, " w"]
    base: Int[np.ndarray, " c"]


def weights_of(
    affinities: Affinities, repels: Sequence[bool], weigh: Callable[..., np.ndarray]
) -> Weights:
    """Weights of all values that the channels may hold.

    Args:
      affinities: [c x y z].
      repels: whether a channel repels.
      weigh: takes values in [0, 1] as float64 and whether they repel; returns weights, of
        which those that are not above 0 say nothing.

    Raises:
      InputError: another dtype than float16, float32 or uint8.
    """

    def weighed(values: np.ndarray, repelling: bool) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.fmax(weigh(values, repelling), 0)  # NaN says nothing

    both = (False, True)
    if affinities.dtype in FEW:
        held = held_values(affinities.dtype)
        weights = np.concatenate([weighed(held, r) for r in both])
        values = affinities.view(FEW[affinities.dtype])
        return Weights(values, weights, len(held) * np.asarray(repels, np.int64))
    if affinities.dtype != np.float32:
        raise InputError(
            f"affinities are {affinities.dtype}; wanted float16, float32, or uint8 "
            "(value / 255)"
        )
    positions = np.empty(affinities.shape, np.uint32)
    weights, base = [], [0]
    for channel, repelling in enumerate(repels):
        held, inverse = np.unique(affinities[channel], return_inverse=True)
        positions[channel] = inverse.reshape(affinities.shape[1:])
        weights.append(weighed(held.astype(np.float64), repelling))
        base.append(base[-1] + len(held))
    return Weights(positions, np.concatenate(weights), np.asarray(base[:-1]))


def held_values(dtype: np.dtype) -> Float64[np.ndarray, " n"]:
    """All numbers that affinities of a type in `FEW` may hold, in order of their bits."""
    if dtype == np.uint8:
        return np.arange(256) / 255
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)


def ranks(of: Weights) -> Int32[np.ndarray, " w"]:
    """1 for the largest weight, and so on; 0 for 0."""
    weights = of.weights
    said = np.flatnonzero(weights)
    inverse = np.unique(-weights[said], return_inverse=True)[1]
    found = np.zeros(len(weights), np.int32)
    found[said] = inverse + 1
    return found
