"""Crops beside what is made of them, a crop in each row, as one PNG.

BANIS logs an image and its affinities while it trains; here labels before and after erosion
stand between the two, before there is a network.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from nisbjax.store import figures
from nisbjax.viz.plots import label_colours

_UNKNOWN = 128  # grey


class Panel(NamedTuple):
    """One plane of a crop.

    Attributes:
      title: above it.
      plane: its first axis is drawn to the right, the second downwards. Whole numbers are
        labels (coloured by id, 0 black, negative ones grey); others are grey values from 0
        to 1.
    """

    title: str
    plane: Shaped[np.ndarray, "a b"]


def draw(
    path: str | os.PathLike,
    rows: Sequence[tuple[str, Sequence[Panel]]],
    aspect: float,
) -> pathlib.Path:
    """Draws all rows.

    Args:
      path: of the PNG; written under a temporary name and renamed.
      rows: what stands beside a row, and its panels; as many in each.
      aspect: height of a voxel, where its width is 1.

    Returns:
      The path.
    """
    path = pathlib.Path(path)
    columns = len(rows[0][1])
    size = (2.9 * columns, 3.3 * len(rows))
    figure = figures.figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (said, panels) in enumerate(rows):
        for column, panel in enumerate(panels):
            shown = axes[row][column]
            shown.imshow(
                _pixels(panel.plane).swapaxes(0, 1),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
                aspect=aspect,
            )
            shown.set_title(panel.title, fontsize=8)
            shown.set_xticks([])
            shown.set_yticks([])
        axes[row][0].set_ylabel(said, fontsize=8)
    figures.save(figure, path, dpi=110)
    return path


def _pixels(
    plane: Shaped[np.ndarray, "a b"],
) -> Shaped[np.ndarray, "a b"] | UInt8[np.ndarray, "a b 3"]:
    if plane.dtype.kind not in "iu":
        return plane
    coloured = label_colours(plane)
    return np.where((plane < 0)[..., None], np.uint8(_UNKNOWN), coloured)
