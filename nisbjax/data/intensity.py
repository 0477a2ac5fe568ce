"""From stored grey values to network inputs: the range of a volume, and its application.

Image bytes travel to the device as they are; one (low, high) pair per sample says how to
scale them there. `divide_255` is BANIS's and PyTC's NISB recipe; `percentile` is PyTC's
"0-1" (SNEMI3D), taken over the volume's own chunks where it reads the volume whole.
"""

import random

import numpy as np
from jax import Array
from jaxtyping import Float32, Shaped

from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid
from nisbjax.store.volume import Volume

NORMALIZATIONS = ("divide_255", "percentile")
_SAMPLED_CHUNKS = 64


def intensity_range(volume: Volume, normalize: str) -> tuple[float, float]:
    """The grey values that become 0 and 1.

    Args:
      volume: an image.
      normalize: `divide_255`, or `percentile` (smallest and largest value of at most 64
        chunks drawn with a fixed seed; of all chunks where there are fewer).

    Raises:
      InputError: another word; `divide_255` on anything but bytes; a constant image.
    """
    if normalize not in NORMALIZATIONS:
        raise InputError(
            f"data.normalize is {normalize!r}; wanted one of {', '.join(NORMALIZATIONS)}"
        )
    if normalize == "divide_255":
        if volume.dtype != np.uint8:
            raise InputError(
                f"{volume.source} holds {volume.dtype}; divide_255 wants uint8; set "
                "data.normalize to percentile"
            )
        return 0.0, 255.0
    boxes = box_grid(volume.spatial_shape, volume.spatial_chunks)
    chosen = random.Random(0).sample(boxes, min(_SAMPLED_CHUNKS, len(boxes)))
    low, high = np.inf, -np.inf
    for box in chosen:
        piece = volume.read(Box(box.start, box.stop))
        low, high = min(low, float(piece.min())), max(high, float(piece.max()))
    if low == high:
        raise InputError(
            f"{volume.source} holds the value {low:g} alone; wanted an image"
        )
    return low, high


def normalized(
    images: Shaped[Array, "b x y z c"], ranges: Float32[Array, "b 2"]
) -> Float32[Array, "b x y z c"]:
    """Images with low -> 0 and high -> 1 (not clipped), on device."""
    low, high = (ranges[:, i, None, None, None, None] for i in (0, 1))
    return (images.astype(ranges.dtype) - low) / (high - low)
