"""From stored grey values to network inputs: the range of a volume, and its application.

Image bytes travel to the device as they are; a `Scale` per sample says how to scale them
there. `divide_255` is BANIS's and PyTC's NISB recipe; `percentile` is PyTC's
"0-1" (SNEMI3D), which clips at two percentiles, and `min_max` that with its defaults. One
NaN there makes the whole volume NaN; here finite voxels decide, and the others enter the
network as the range's lowest.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jaxtyping import Float32, Shaped

from nisbjax.data.percentiles import boxes_of, extremes, percentiles
from nisbjax.errors import InputError, require_choice
from nisbjax.store.volume import Volume

RANGES = ("divide_255", "min_max", "percentile")
UNBOUNDED = (-math.inf, math.inf)


class Scale(NamedTuple):
    """How grey values become network inputs: low -> 0, high -> 1, then bounds.

    Where dark is to be bright, low is the larger one.
    """

    low: float = 0.0
    high: float = 255.0
    least: float = 0.0
    most: float = 1.0


def intensity_range(
    volume: Volume, normalize: str, between: Sequence[float | int] = (0.0, 100.0)
) -> tuple[float, float]:
    """The grey values that become 0 and 1.

    Args:
      volume: an image.
      normalize: `divide_255`; `min_max`, the smallest and the largest finite value; or
        `percentile`, two percentiles of the finite values. The volume is read once for
        `min_max`, and for `percentile` two to five times, the more the wider its type.
      between: these percentiles, in [0, 100].

    Returns:
      (low, high), exact.

    Raises:
      InputError: another word or percentiles; `divide_255` on anything but bytes; an image
        without two different finite values, or whose percentiles are equal.
    """
    require_choice("data.normalize", normalize, RANGES)
    if normalize == "divide_255":
        if volume.dtype != np.uint8:
            raise InputError(
                f"{volume.source} holds {volume.dtype}; divide_255 wants uint8; set "
                "data.normalize to min_max or percentile"
            )
        return 0.0, 255.0
    require_grey(volume)
    found = extremes(volume)
    if not found.finite:
        raise InputError(
            f"{volume.source} holds no finite value, only NaN and Inf; wanted an image"
        )
    low, high = found.low, found.high
    if low == high:
        raise InputError(
            f"{volume.source} holds the value {low:g} alone; wanted an image"
        )
    if normalize == "percentile" and tuple(between) != (0, 100):
        low, high = _between(volume, between, found.finite)
    _require_range(volume, low, high)
    if others := volume.store.size - found.finite:
        logging.warning(
            "%s: %d of %d voxels are NaN or Inf; they count as %g, the lowest value of the "
            "range",
            volume.source,
            others,
            volume.store.size,
            low,
        )
    return low, high


def mean_and_deviation(volume: Volume) -> tuple[float, float]:
    """The mean of a volume's finite values, and that plus their standard deviation.

    These are the grey values that become 0 and 1 of a z-score.

    Raises:
      InputError: no grey values, or no two different ones that are finite.
    """
    require_grey(volume)
    count, mean, squares = 0, 0.0, 0.0
    for values in boxes_of(volume):
        if not values.size:
            continue
        # Boxes one after another (Chan et al.), since sums of squares would cancel.
        own = float(values.mean(dtype=np.float64))
        total = count + values.size
        squares += float(np.square(values - own, dtype=np.float64).sum())
        squares += (own - mean) ** 2 * count * values.size / total
        mean += (own - mean) * values.size / total
        count = total
    if not squares:
        raise InputError(
            f"{volume.source} holds no two different finite values; wanted an image"
        )
    high = mean + math.sqrt(squares / count)
    _require_range(volume, mean, high)
    return mean, high


def require_grey(volume: Volume) -> None:
    """Refuses what holds no grey values.

    Raises:
      InputError: no integers or floats of up to 64 bits.
    """
    if volume.dtype.kind not in "iuf" or volume.dtype.itemsize > 8:
        raise InputError(
            f"{volume.source} holds {volume.dtype}; wanted grey values as integers or floats"
        )


def _require_range(volume: Volume, low: float, high: float) -> None:
    with np.errstate(over="ignore"):
        span = np.float32(high) - np.float32(low)
    if not (np.isfinite(span) and span > 0):
        raise InputError(
            f"{volume.source} holds values from {low:g} to {high:g}, a range that float32 "
            "does not hold; scale the image, or set data.normalize to percentile and "
            "data.percentiles closer together"
        )


def _between(
    volume: Volume, wanted: Sequence[float | int], count: int
) -> tuple[float, float]:
    if len(wanted) != 2 or not 0 <= wanted[0] < wanted[1] <= 100:
        raise InputError(
            f"data.percentiles is {tuple(wanted)}; wanted two numbers in [0, 100], the lower "
            "one first"
        )
    low, high = percentiles(volume, wanted, count)
    if low == high:
        raise InputError(
            f"{volume.source}: its percentiles {wanted[0]:g} and {wanted[1]:g} are both "
            f"{low:g}; wanted data.percentiles further apart"
        )
    return low, high


def normalized(
    images: Shaped[Array, "b x y z c"], scales: Float32[Array, "b 4"]
) -> Float32[Array, "b x y z c"]:
    """Images with low -> 0 and high -> 1, within bounds, on device.

    Args:
      images: as stored.
      scales: a `Scale` of each.

    Returns:
      Finite values: NaN and Inf count as low.
    """
    low, high, least, most = (scales[:, i, None, None, None, None] for i in range(4))
    values = images.astype(scales.dtype)
    if jnp.issubdtype(images.dtype, jnp.floating):
        values = jnp.where(jnp.isfinite(values), values, low)
    return jnp.clip((values - low) / (high - low), least, most)
