"""What was read, in two lines for a pair of volumes, so that a wrong file is seen at once.

PyTC prints shapes, BANIS nothing. Counts are of three crops, which a start can wait for.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer

from nisbjax.data.nisb import Pair
from nisbjax.data.orientation import crops
from nisbjax.store.unlabeled import to_int32
from nisbjax.store.volume import Volume


def lines(pair: Pair, unlabeled: str) -> Iterator[str]:
    """An image in one line, its labels in the next.

    Args:
      pair: of which three crops are read.
      unlabeled: values that nobody vouches for, see `unlabeled.parse_codes`.
    """
    boxes = list(crops(pair.labels.spatial_shape))
    grey = np.concatenate([pair.image.read(box).ravel() for box in boxes])
    known = np.concatenate(
        [to_int32(pair.labels.read(box), unlabeled).ravel() for box in boxes]
    )
    low, high = np.nanmin(grey), np.nanmax(grey)
    yield f"{_file(pair.image)}, grey values {low:.6g} to {high:.6g} in 3 crops"
    yield f"{_file(pair.labels)}, {_shares(known)} in 3 crops"


def _file(volume: Volume) -> str:
    sides = " x ".join(map(str, volume.spatial_shape))
    channels = volume.shape[volume.axes.index("c")] if "c" in volume.axes else 1
    several = f", {channels} channels" if channels > 1 else ""
    order = " ".join(volume.stored_axes or volume.axes[:3])
    said = "stored as" if volume.stored_axes else "no word for its axes, taken as"
    size = _voxel_size(volume)
    return f"{volume.source}: {sides} voxels{several} of {volume.dtype}, {said} {order}{size}"


def _voxel_size(volume: Volume) -> str:
    found = volume.attributes.get("voxel_size_nm")
    if not isinstance(found, list | tuple) or not all(
        isinstance(size, int | float) for size in found
    ):
        return ""
    return f", voxels of {' x '.join(f'{size:g}' for size in found)} nm"


def _shares(labels: Integer[np.ndarray, " n"]) -> str:
    objects = len(np.unique(labels[labels > 0]))
    background = float(np.mean(labels == 0))
    nobody = float(np.mean(labels < 0))
    return f"{objects} labels, {background:.0%} background, {nobody:.0%} unlabeled"
