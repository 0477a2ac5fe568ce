"""What a volume's file is, in words for a log: type, shape, how its axes lie, voxel size.

PyTC prints shapes, BANIS nothing.
"""

from collections.abc import Sequence

import numpy as np

from nisbjax.store.volume import Volume

_SAME = 0.01  # of a voxel's side


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
    size = named_voxel_size(volume)
    return f", {' x '.join(f'{each:g}' for each in size)} nm" if size else ""


def other_size(volume: Volume, wanted: Sequence[float | int]) -> str:
    """A line on a file whose voxels are of another size than is said; "" where they agree.

    Args:
      volume: as it was opened.
      wanted: `data.voxel_size_nm`, or that of a source.
    """
    said = named_voxel_size(volume)
    if not said or np.allclose(said, wanted, rtol=_SAME):
        return ""
    return (
        f"{volume.source} says that its voxels are of {_by(said)} nm, and "
        f"data.voxel_size_nm is {_by(wanted)}; say which with "
        f"--config.data.voxel_size_nm='({', '.join(map(str, said))})'"
    )


def _by(size: Sequence[float | int]) -> str:
    return " x ".join(f"{each:g}" for each in size)


def named_voxel_size(volume: Volume) -> tuple[float, ...]:
    """Sides in nm that a file says of its voxels, x y z; () where it says nothing."""
    found = volume.attributes.get("voxel_size_nm")
    if not isinstance(found, list | tuple) or len(found) != 3:
        return ()
    if not all(isinstance(size, int | float) for size in found):
        return ()
    return tuple(map(float, found))
