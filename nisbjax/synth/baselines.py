"""Affinities that no network made: the image's own grey values, and the labels'.

They bracket a data set. A trained model has to beat thresholded intensity, and the true
affinities show what decoding and scoring cost by themselves. Neither is in BANIS or PyTC,
whose demos show a score without its floor and ceiling.
"""

import math

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter

from nisbjax.errors import InputError
from nisbjax.offsets import OFFSETS_6, edge_slices
from nisbjax.typing import Image, Labels

INTERIORS = ("bright", "dark")


def intensity_affinities(
    image: Image, *, interior: str = "bright", sigma: float = 0.0
) -> Float32[np.ndarray, "3 x y z"]:
    """Grey values as affinities: an edge is as strong as the weaker of its two voxels.

    Args:
      image: uint8 [x y z c]; channels are averaged.
      interior: `bright` where membranes are dark, `dark` inverts.
      sigma: of a Gaussian in voxels applied first, 0 for none.

    Returns:
      Affinities in [0, 1], source-stored, of the offsets +1 along x, y and z; 0 where the
      edge leaves the volume.

    Raises:
      InputError: another `interior`.
    """
    if interior not in INTERIORS:
        raise InputError(
            f"interior is {interior!r}; wanted one of {', '.join(INTERIORS)}"
        )
    values: np.ndarray = image.mean(axis=-1, dtype=np.float32) / np.float32(255)
    if interior == "dark":
        values = 1 - values
    if sigma > 0:
        reach = math.ceil(3 * sigma)
        values = gaussian_filter(values, sigma, mode="nearest", radius=reach)
    affinities = np.zeros((3, *values.shape), np.float32)
    for channel, offset in enumerate(OFFSETS_6[:3]):
        source, target = edge_slices(values.shape, offset)
        affinities[channel][source] = np.minimum(values[source], values[target])
    return affinities


def true_affinities(labels: Labels) -> Float32[np.ndarray, "3 x y z"]:
    """1 where an edge's two voxels carry the same positive id, else 0; source-stored."""
    affinities = np.zeros((3, *labels.shape), np.float32)
    for channel, offset in enumerate(OFFSETS_6[:3]):
        source, target = edge_slices(labels.shape, offset)
        same = (labels[source] == labels[target]) & (labels[source] > 0)
        affinities[channel][source] = same
    return affinities
