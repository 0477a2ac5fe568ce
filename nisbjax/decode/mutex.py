"""Mutex watershed: long-range affinities as evidence against merging.

BANIS and PyTC train channels 3-5 (ten voxels away on x, y, z) and drop them when they
decode. Here the short channels attract where they exceed the threshold, and the long ones
repel where they fall below a second one; the strongest evidence counts first, of either
kind (Wolf et al., ECCV 2018; `mwatershed`). PyTC's affogato decoder repels by every long
affinity, also by those that speak for one neuron.

In memory alone, and in one thread: `mwatershed` sorts a list of all six edges of every
voxel, 505 bytes a voxel as measured, so 4 GB hold 200^3 voxels.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt

from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.offsets import OFFSETS_6, edge_slices
from nisbjax.typing import Affinities, Triple

_BYTES_PER_VOXEL = 520


def memory_bytes(dtype: np.dtype, voxels: int) -> int:
    """What the mutex watershed of six channels needs, its input with it."""
    return voxels * (_BYTES_PER_VOXEL + 6 * np.dtype(dtype).itemsize)


def mutex_affinities(
    affinities: Affinities,
    threshold: float,
    low: float,
    *,
    offsets: Sequence[Triple] = OFFSETS_6,
    edges: MaskedEdges | None = None,
) -> UInt[np.ndarray, "x y z"]:
    """Segments that attraction makes and repulsion keeps apart.

    Args:
      affinities: [c x y z], one channel for each offset, at least 4.
      threshold: above it, short channels (0-2) attract by their distance from it.
      low: below it, long channels repel by their distance from it.
      offsets: of the channels, in voxels.
      edges: which of them count; all, stored at their source, where None.

    Returns:
      [x y z] labels 1..N in C order of first voxels, 0 = no attraction at all.

    Raises:
      InputError: no long channels, a volume smaller than an offset, bad thresholds, a mask
        of another shape, or `mwatershed` is not installed.
    """
    check(affinities.shape, offsets)
    check_thresholds(affinities.dtype, threshold, low)
    import mwatershed

    edges = edges or MaskedEdges()
    shape = affinities.shape[1:]
    edges.require_shape(shape)
    if affinities.dtype != np.uint8:  # rounded as the plain decoder does
        threshold = float(affinities.dtype.type(threshold))
    values = affinities.astype(np.float64)
    if affinities.dtype == np.uint8:
        values /= 255
    # NaN is evidence of nothing.
    values[:3] = np.fmax(values[:3] - threshold, 0)
    values[3:] = np.fmin(values[3:] - low, 0)
    mask = edges.mask_of(Box.whole(shape))
    if mask is not None:
        values *= mask
        if edges.both:
            for channel, offset in zip(values, offsets, strict=True):
                stored, other = edge_slices(shape, offset)
                if edges.edge_offset:
                    stored, other = other, stored
                channel[stored] *= mask[other]
    sign = -1 if edges.edge_offset else 1
    found = mwatershed.agglom(
        values, [[sign * o for o in offset] for offset in offsets]
    )
    return _in_c_order(found)


def check(shape: tuple[int, ...], offsets: Sequence[Triple]) -> None:
    """Refuses affinities of a shape [c x y z] that cannot be decoded so.

    Raises:
      InputError: no long channels, a volume smaller than an offset, or `mwatershed` is not
        installed.
    """
    if importlib.util.find_spec("mwatershed") is None:
        raise InputError(
            "decode.method=mutex needs mwatershed; pip install 'nisbjax[mutex]'"
        )
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


def _in_c_order(labels: np.ndarray) -> UInt[np.ndarray, "x y z"]:
    names, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    new = np.zeros(len(names), np.uint32)
    order = np.argsort(first)
    order = order[names[order] != 0]
    new[order] = np.arange(1, len(order) + 1)
    return new[inverse].reshape(labels.shape)
