"""Pictures of a run: slices side by side.

Figures are drawn by matplotlib's object interface, so that nothing needs a display. BANIS
logs single planes to TensorBoard; here image, affinity, segmentation and truth of the same
planes stand in one PNG beside the numbers.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from nisbjax.geometry import Box
from nisbjax.store import figures
from nisbjax.store.volume import Volume
from nisbjax.viz.colours import label_colours, matched_colours

_PLANES = ((2, "z"), (1, "y"), (0, "x"))
_EDGE = 512  # voxels shown along an axis, around the centre


def slices(
    path: str | os.PathLike,
    columns: Mapping[str, Volume],
    voxel_size_nm: Sequence[float],
    *,
    truth: str = "",
) -> pathlib.Path:
    """Three mid-planes (z, y, x) of several volumes of one shape, one volume a column.

    Args:
      path: of the PNG; written under a temporary name and renamed.
      columns: title -> image [x y z c], affinities [c x y z] (mean over channels), or
        labels [x y z] (coloured by id). At most 512 voxels of an axis are shown.
      voxel_size_nm: x y z, for the aspect ratio.
      truth: the title of labels whose colours the other labels take where they overlap;
        "" for none.

    Returns:
      The path.
    """
    path = pathlib.Path(path)
    figure = figures.figure(figsize=(3.2 * len(columns), 9), layout="constrained")
    axes = figure.subplots(len(_PLANES), len(columns), squeeze=False)
    planes = {
        title: [_plane(volume, axis) for axis, _ in _PLANES]
        for title, volume in columns.items()
    }
    for column, (title, volume) in enumerate(columns.items()):
        shown_planes = planes[title]
        if volume.axes == "xyz" and truth in ("", title):
            shown_planes = [label_colours(plane) for plane in shown_planes]
        elif volume.axes == "xyz":
            shown_planes = matched_colours(shown_planes, planes[truth])
        for row, (axis, name) in enumerate(_PLANES):
            plane = shown_planes[row]
            across, down = (a for a in range(3) if a != axis)
            shown = axes[row][column]
            grey = plane.ndim == 2
            shown.imshow(
                plane.swapaxes(0, 1),
                cmap="gray" if grey else None,
                vmin=0 if grey else None,
                vmax=_white(volume) if grey else None,
                interpolation="nearest",
                aspect=voxel_size_nm[down] / voxel_size_nm[across],
            )
            shown.set_xticks([])
            shown.set_yticks([])
            if row == 0:
                shown.set_title(title)
            if column == 0:
                middle = volume.spatial_shape[axis] // 2
                shown.set_ylabel(f"{name} = {middle}")
    figures.save(figure, path, dpi=110)
    return path


def _plane(volume: Volume, axis: int) -> Shaped[np.ndarray, "..."]:
    start = [max(0, (size - _EDGE) // 2) for size in volume.spatial_shape]
    stop = [min(size, s + _EDGE) for s, size in zip(start, volume.spatial_shape)]
    start[axis] = volume.spatial_shape[axis] // 2
    stop[axis] = start[axis] + 1
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    values = volume.read(box)
    if volume.axes == "xyz":
        return values.squeeze(axis).astype(np.int64)
    channel = volume.axes.index("c")
    return values.astype(np.float32).mean(axis=channel).squeeze(axis)


def _white(volume: Volume) -> float:
    return 255.0 if volume.dtype == np.uint8 else 1.0
