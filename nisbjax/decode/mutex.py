"""Mutex watershed by two thresholds: long-range affinities as evidence against merging.

BANIS and PyTC train channels 3-5 (ten voxels away on x, y, z) and drop them when they
decode. Here the short channels attract where they exceed the threshold, and the long ones
repel where they fall below a second one; the strongest evidence counts first, of either
kind (`mutex_components`). PyTC's affogato decoder repels by every long affinity, also by
those that speak for one neuron.

In memory alone, and in one thread.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt

from nisbjax.decode import mutex_components
from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.edge_weights import weights_of
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError
from nisbjax.offsets import OFFSETS_6
from nisbjax.typing import Affinities, Triple


@dataclasses.dataclass(frozen=True)
class MutexParameters:
    """The keys of `decode` that the mutex watershed takes.

    Attributes:
      threshold: above which short edges attract.
      low_threshold: below which long ones repel.
    """

    threshold: float
    low_threshold: float


def mutex_affinities(
    affinities: Affinities,
    threshold: float,
    low: float,
    *,
    offsets: Sequence[Triple] = OFFSETS_6,
    edges: MaskedEdges | None = None,
    progress: str = "",
) -> UInt[np.ndarray, "x y z"]:
    """Segments that attraction makes and repulsion keeps apart.

    Args:
      affinities: [c x y z], one channel for each offset, at least 4.
      threshold: above it, short channels (0-2) attract by their distance from it.
      low: below it, long channels repel by their distance from it.
      offsets: of the channels, in voxels.
      edges: which of them count; all, stored at their source, where None.
      progress: what the log calls the work, as it goes on; "" to say nothing.

    Returns:
      [x y z] labels 1..N in C order of first voxels, 0 = no attraction at all. Equal
      evidence is taken in order of its channels, then in C order of its voxels.

    Raises:
      InputError: no long channels, a volume smaller than an offset, bad thresholds, or a
        mask of another shape.
    """
    check(affinities.shape, offsets)
    check_thresholds(affinities.dtype, threshold, low)
    if affinities.dtype != np.uint8:  # rounded as the plain decoder does
        threshold = float(affinities.dtype.type(threshold))

    def weigh(values: np.ndarray, repels: bool) -> np.ndarray:
        return low - values if repels else values - threshold

    repels = [channel >= 3 for channel in range(len(offsets))]
    weights = weights_of(affinities, repels, weigh)
    edges = edges or MaskedEdges()
    return mutex_components.components(
        weights, repels, offsets, edges, progress=progress
    )


def check(shape: tuple[int, ...], offsets: Sequence[Triple]) -> None:
    """Refuses affinities of a shape [c x y z] that cannot be decoded so.

    Raises:
      InputError: no long channels, or a volume smaller than an offset.
    """
    if not 4 <= shape[0] == len(offsets):
        raise InputError(
            f"mutex decoding got {shape[0]} channels for {len(offsets)} offsets; "
            "wanted the long-range ones too, --config.predict.channels=(0,1,2,3,4,5)"
        )
    if any(
        abs(o) >= s
        for offset in offsets
        for o, s in zip(offset, shape[1:], strict=True)
    ):
        raise InputError(
            f"a volume of shape {shape[1:]} is smaller than an offset of "
            f"{tuple(offsets)}; use --config.decode.method=affinity_cc"
        )


def check_thresholds(dtype: np.dtype, threshold: float, low: float) -> None:
    """Refuses thresholds outside [0, 1].

    Raises:
      InputError: naming the threshold.
    """
    for value in (threshold, low):
        edge_range(dtype, value)
