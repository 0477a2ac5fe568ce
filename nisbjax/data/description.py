"""What was read, in two lines for a pair of volumes, so that a wrong file is seen at once.

PyTC prints shapes, BANIS nothing. Counts are of three crops, which a start can wait for.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nisbjax.data.nisb import Pair
from nisbjax.data.orientation import crops
from nisbjax.store.unlabeled import to_int32
from nisbjax.store.volume import Volume

_SAME = 0.01  # of a voxel's size


def lines(pair: Pair, unlabeled: str) -> Iterator[str]:
    """An image in two lines, its path in the first, then its labels likewise.

    Args:
      pair: of which three crops are read.
      unlabeled: values that nobody vouches for, see `unlabeled.parse_codes`.
    """
    seen = look(pair, unlabeled)
    yield f"{file_lines(pair.image)}, grey {seen.low:.6g} to {seen.high:.6g}"
    yield f"{file_lines(pair.labels)}\n{seen} in 3 crops"


class Look(NamedTuple):
    """What three crops of a pair hold."""

    low: float  # grey values
    high: float
    objects: int
    background: float  # share of voxels
    unlabeled: float

    def __str__(self) -> str:
        return (
            f"{self.objects} labels, {self.background:.0%} background, "
            f"{self.unlabeled:.0%} unlabeled"
        )


def look(pair: Pair, unlabeled: str) -> Look:
    """Reads three crops; arguments as of `lines`."""
    boxes = list(crops(pair.labels.spatial_shape))
    grey = np.concatenate([pair.image.read(box).ravel() for box in boxes])
    known = np.concatenate(
        [to_int32(pair.labels.read(box), unlabeled).ravel() for box in boxes]
    )
    return Look(
        float(np.nanmin(grey)),
        float(np.nanmax(grey)),
        len(np.unique(known[known > 0])),
        float(np.mean(known == 0)),
        float(np.mean(known < 0)),
    )


def file_lines(volume: Volume) -> str:
    """A file's path, and below it type, shape, how its axes lie, the size of its voxels."""
    sides = " x ".join(map(str, volume.spatial_shape))
    channels = volume.shape[volume.axes.index("c")] if "c" in volume.axes else 1
    several = f", {channels} channels" if channels > 1 else ""
    order = " ".join(volume.stored_axes or volume.axes[:3])
    said = "stored as" if volume.stored_axes else "no word for its axes, taken as"
    size = _voxel_size(volume)
    facts = f"{volume.dtype} {sides}{several}, {said} {order}{size}"
    return f"{volume.source}\n{facts}"


def _voxel_size(volume: Volume) -> str:
    size = voxel_size_nm(volume)
    return f", {' x '.join(f'{each:g}' for each in size)} nm" if size else ""


def other_size(volume: Volume, wanted: Sequence[float | int]) -> str:
    """A line on a file whose voxels are of another size than is said; "" where they agree.

    Args:
      volume: as it was opened.
      wanted: `data.voxel_size_nm`, or that of a source.
    """
    said = voxel_size_nm(volume)
    if not said or np.allclose(said, wanted, rtol=_SAME):
        return ""
    return (
        f"{volume.source} says that its voxels are of {_by(said)} nm, and "
        f"data.voxel_size_nm is {_by(wanted)}; say which with "
        f"--config.data.voxel_size_nm='({', '.join(map(str, said))})'"
    )


def _by(size: Sequence[float | int]) -> str:
    return " x ".join(f"{each:g}" for each in size)


def voxel_size_nm(volume: Volume) -> tuple[float, ...]:
    """What a file says of its voxels, x y z; () where it says nothing."""
    found = volume.attributes.get("voxel_size_nm")
    if not isinstance(found, list | tuple) or len(found) != 3:
        return ()
    if not all(isinstance(size, int | float) for size in found):
        return ()
    return tuple(map(float, found))
