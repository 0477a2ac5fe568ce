"""Whether labels lie along their image: a look at the voxels, whatever files say of axes.

Membranes stand out between two neurites. So voxels at the borders of labels differ from the
others in grey value or in its gradient, and where image and labels are each other's transpose
they do not. PyTC and BANIS train on such pairs without a word.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import tensorstore as ts
from absl import logging
from jaxtyping import Bool, Float32, Integer
from scipy import ndimage

from nisbjax.data.nisb import Pair
from nisbjax.geometry import Box
from nisbjax.store.volume import Volume

_CROP = 64  # voxels along an axis
_PLACES = (0.5, 0.15, 0.85)  # of crops, along each axis
_CLEARLY = (2.0, 0.1)  # times the contrast of the order as it is, and more


def warn(pair: Pair) -> str:
    """Says in the log where labels in another order fit their image clearly better.

    Args:
      pair: of which three crops are read.

    Returns:
      What is said; "" where nothing is.
    """
    found = contrasts(pair)
    as_it_is = found["xyz"]
    best = max(found, key=lambda letters: found[letters])
    factor, more = _CLEARLY
    if found[best] <= factor * as_it_is + more:
        return ""
    said = (
        f"the borders of {pair.labels.source} fit {pair.image.source} better with the axes "
        f"of the labels taken as {' '.join(best)} (contrast {found[best]:.2f}, as they are "
        f"{as_it_is:.2f}): is one of the two stored in another order? Say so behind its "
        "path, as labels.h5#zyx"
    )
    logging.warning(said)
    return said


def contrasts(pair: Pair) -> dict[str, float]:
    """How much borders of labels stand out in the image, for each order of the labels' axes.

    Args:
      pair: image and labels; of a cube, six orders fit.

    Returns:
      By the letters of the order (`zyx`: the labels' first axis is z), those whose shape is
      the image's: difference between the means at borders and elsewhere, in standard
      deviations, of the first channel or of its gradient, whichever is larger; the mean over
      crops.
    """
    sums: dict[str, list[float]] = {}
    for box in crops(pair.labels.spatial_shape):
        grey = pair.image.read(box)[..., 0].astype(np.float32)
        slope = ndimage.gaussian_gradient_magnitude(grey, 1.0)
        for letters, turned in _orders(pair):
            borders = _borders(turned.read(box))
            contrast = max(_contrast(grey, borders), _contrast(slope, borders))
            sums.setdefault(letters, []).append(contrast)
    return {letters: float(np.mean(found)) for letters, found in sums.items()}


def crops(shape: tuple[int, ...]) -> Iterator[Box]:
    """Three boxes of a volume of that shape: in the middle and towards two corners."""
    for place in _PLACES:
        sides = [min(_CROP, size) for size in shape]
        x, y, z = (int(place * (s - c)) for s, c in zip(shape, sides, strict=True))
        yield Box((x, y, z), (x + sides[0], y + sides[1], z + sides[2]))


def _orders(pair: Pair) -> Iterator[tuple[str, Volume]]:
    """The labels with their axes in each order that gives the image's shape."""
    for letters in map("".join, itertools.permutations("xyz")):
        order = tuple(letters.index(a) for a in "xyz")
        turned = pair.labels.store[ts.d[order].transpose[:]]
        if tuple(turned.shape) == pair.image.spatial_shape:
            yield letters, pair.labels.view(turned)


def _borders(labels: Integer[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Voxels with a neighbour of another label, on either side."""
    found = np.zeros(labels.shape, bool)
    for axis in range(3):
        low = np.moveaxis(found, axis, 0)
        turned = np.moveaxis(labels, axis, 0)
        differs = turned[1:] != turned[:-1]
        low[1:] |= differs
        low[:-1] |= differs
    return found


def _contrast(
    values: Float32[np.ndarray, "x y z"], where: Bool[np.ndarray, "x y z"]
) -> float:
    spread = float(values.std())
    if not spread or where.all() or not where.any():
        return 0.0
    return abs(float(values[where].mean() - values[~where].mean())) / spread
