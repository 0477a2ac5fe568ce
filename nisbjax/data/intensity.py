"""From stored grey values to network inputs: the range of a volume, and its application.

Image bytes travel to the device as they are; one (low, high) pair per sample says how to
scale them there. `divide_255` is BANIS's and PyTC's NISB recipe; `percentile` is PyTC's
"0-1" (SNEMI3D), which clips at two percentiles, and `min_max` that with its defaults. One
NaN there makes the whole volume NaN; here finite voxels decide, and the others enter the
network as the range's lowest.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jaxtyping import Float32, Shaped

from nisbjax.data.percentiles import extremes, percentiles
from nisbjax.errors import InputError
from nisbjax.store.volume import Volume

NORMALIZATIONS = ("divide_255", "min_max", "percentile")


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
    if normalize not in NORMALIZATIONS:
        raise InputError(
            f"data.normalize is {normalize!r}; wanted one of {', '.join(NORMALIZATIONS)}"
        )
    if normalize == "divide_255":
        if volume.dtype != np.uint8:
            raise InputError(
                f"{volume.source} holds {volume.dtype}; divide_255 wants uint8; set "
                "data.normalize to min_max or percentile"
            )
        return 0.0, 255.0
    if volume.dtype.kind not in "iuf" or volume.dtype.itemsize > 8:
        raise InputError(
            f"{volume.source} holds {volume.dtype}; wanted grey values as integers or floats"
        )
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
    with np.errstate(over="ignore"):
        span = np.float32(high) - np.float32(low)
    if not (np.isfinite(span) and span > 0):
        raise InputError(
            f"{volume.source} holds values from {low:g} to {high:g}, a range that float32 "
            "does not hold; scale the image, or set data.normalize to percentile and "
            "data.percentiles closer together"
        )
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
    images: Shaped[Array, "b x y z c"],
    ranges: Float32[Array, "b 2"],
    *,
    clip: bool = True,
) -> Float32[Array, "b x y z c"]:
    """Images with low -> 0 and high -> 1, on device.

    Args:
      images: as stored.
      ranges: low and high of each.
      clip: what lies beyond becomes 0 or 1.

    Returns:
      Finite values: NaN and Inf count as low.
    """
    low, high = (ranges[:, i, None, None, None, None] for i in (0, 1))
    values = images.astype(ranges.dtype)
    if jnp.issubdtype(images.dtype, jnp.floating):
        values = jnp.where(jnp.isfinite(values), values, low)
    scaled = (values - low) / (high - low)
    return jnp.clip(scaled, 0, 1) if clip else scaled
