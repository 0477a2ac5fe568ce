"""Grey values scaled slice by slice of z, for stacks whose sections differ in brightness.

PyTC and BANIS scale a volume as one; sections of a microscope that drifts are then
darker or brighter than their neighbours. A slice is read whole for its statistics.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Float64, Shaped

from nisbjax.data.intensity import require_grey
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import views
from nisbjax.store.volume import Volume

_READ_BYTES = 1 << 28  # slices of one chunk, read together


def ranges(
    image: Volume, kind: str, percentiles: Sequence[float | int]
) -> Float64[np.ndarray, "z 2"]:
    """The grey values of each slice that become 0 and 1.

    Args:
      image: [x y z c], a whole volume.
      kind: `min_max`, `percentile` or `zscore` (then mean and mean + standard deviation).
      percentiles: of `percentile`.

    Returns:
      Equal values for a slice that holds one value alone, or none that is finite.

    Raises:
      InputError: no grey values, or no slice that holds two different ones.
    """
    require_grey(image)
    x, y, z = image.spatial_shape
    found = np.zeros((z, 2))
    plane = x * y * image.shape[-1] * image.dtype.itemsize
    depth = max(1, min(image.spatial_chunks[2], _READ_BYTES // plane))
    for start in range(0, z, depth):
        stop = min(start + depth, z)
        values = image.read(Box((0, 0, start), (x, y, stop)))
        for number in range(start, stop):
            found[number] = _range(values[:, :, number - start], kind, percentiles)
    if not (found[:, 0] != found[:, 1]).any():
        raise InputError(
            f"{image.source} has no slice of z that holds two different grey values; "
            "wanted an image"
        )
    return found


def _range(
    values: Shaped[np.ndarray, "x y c"], kind: str, percentiles: Sequence[float | int]
) -> tuple[float, float]:
    known = values.ravel()
    if known.dtype.kind == "f":
        known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 0.0
    if kind == "zscore":
        mean, deviation = known.mean(dtype=np.float64), known.std(dtype=np.float64)
        return float(mean), float(mean + deviation)
    if kind == "min_max":
        return float(known.min()), float(known.max())
    low, high = np.percentile(known, tuple(percentiles))
    return float(low), float(high)


def scaled(
    image: Volume,
    ranges: Float64[np.ndarray, "z 2"],
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Volume:
    """A view of an image in float32 whose slices are scaled each by its own range.

    Args:
      image: [x y z c], a whole volume.
      ranges: of its slices; one of equal values makes its slice 0.
      bounds: of what comes out; NaN and Inf count as what becomes 0.
    """
    store = views.view(
        functools.partial(_scale, image, np.asarray(ranges), bounds),
        image.shape,
        np.float32,
        image.chunks,
        own_threads=True,
    )
    return Volume(store, image.axes, image.attributes, image.source, image.stored_axes)


def _scale(
    image: Volume,
    ranges: Float64[np.ndarray, "z 2"],
    bounds: tuple[float, float],
    domain: ts.IndexDomain,
    chunk: np.ndarray,
    _: Any,
) -> None:
    index = tuple(slice(d.inclusive_min, d.exclusive_max) for d in domain)
    low, high = (ranges[index[2], i][None, None, :, None] for i in (0, 1))
    values = image.read(index).astype(np.float64)
    values = np.where(np.isfinite(values), values, low)
    span = np.where(high == low, math.inf, high - low)  # a slice of one value is 0
    chunk[...] = np.clip((values - low) / span, *bounds)
