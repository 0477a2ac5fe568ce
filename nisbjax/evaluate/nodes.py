"""The segment at each skeleton node, read from a segmentation on disk.

BANIS reads voxel by voxel ("slow for zarr") and PyTC loads the volume; here nodes are
grouped by chunk, and only the chunks that hold nodes are read, each once.
"""

import math
from collections import deque

import numpy as np
from jaxtyping import Bool, Integer

from nisbjax.console.progress import Progress
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.skeletons import Skeletons
from nisbjax.store.regions import region_of
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

_LARGEST_READ = 1 << 26  # voxels; larger chunks (an unchunked file) are read in parts
_READS_IN_FLIGHT = 8


def read_node_segments(
    segmentation: Volume, skeletons: Skeletons
) -> Integer[np.ndarray, " n"]:
    """Value of the segmentation at every node, in the order of the nodes.

    Memory is that of eight chunks. A node on a background voxel gets 0; nothing is
    interpolated or dilated.

    Raises:
      InputError: labels of another rank or type, or nodes outside the volume.
    """
    shape = segmentation.spatial_shape
    if segmentation.rank != 3 or segmentation.dtype.kind not in "iu":
        raise InputError(
            f"{segmentation.source} holds {segmentation.dtype} of shape "
            f"{segmentation.shape}; wanted integer labels [x y z]"
        )
    check_inside(skeletons, shape, segmentation.source)
    positions = skeletons.index_position
    cell = _cell_shape(segmentation)
    grid = tuple(-(-s // c) for s, c in zip(shape, cell, strict=True))
    cell_of_node = np.ravel_multi_index(tuple((positions // cell).T), grid)
    cell_of_node = np.asarray(cell_of_node)
    order = np.argsort(cell_of_node, kind="stable")
    breaks = np.flatnonzero(np.diff(cell_of_node[order])) + 1

    segments = np.zeros(len(positions), segmentation.dtype)
    reading = deque()

    def finish() -> None:
        rows, start, future = reading.popleft()
        block = np.asarray(future.result())
        segments[rows] = block[tuple((positions[rows] - start).T)]

    groups = np.split(order, breaks)
    with Progress("evaluate", len(groups), "chunks") as progress:
        for rows in groups:
            start, stop = positions[rows].min(axis=0), positions[rows].max(axis=0) + 1
            index = tuple(map(slice, start.tolist(), stop.tolist()))
            # by absolute index, as a transposed or sliced store keeps its own origin
            reading.append((rows, start, segmentation.start_read(index)))
            if len(reading) >= _READS_IN_FLIGHT:
                finish()
            progress.update()
        while reading:
            finish()
    return segments


def in_region(skeletons: Skeletons, volume: Volume) -> tuple[Skeletons, str]:
    """The skeletons as far as an array covers them, and a sentence if that is a part.

    Predictions of a region (`predict.roi`) and what is decoded from them say in `box` and
    `volume_shape` which part of which volume they are; all other arrays are whole volumes.

    Raises:
      InputError: nodes outside the volume, or none in the region.
    """
    region, shape = region_of(volume)
    check_inside(skeletons, shape, volume.source)
    if region == Box.whole(shape):
        return skeletons, ""
    part = skeletons.within(region)
    if not len(part.edges):
        raise InputError(
            f"{volume.source} covers {region} of its volume, where {skeletons.source} has "
            "no edge; predict another --config.predict.roi"
        )
    return part, (
        f"scored inside {region} of a volume of {shape}: {len(part.node_id)} of "
        f"{len(skeletons.node_id)} nodes, {len(part.edges)} of {len(skeletons.edges)} "
        "edges; not the volume's NERL"
    )


def outside(skeletons: Skeletons, shape: Triple) -> Bool[np.ndarray, " n"]:
    """Nodes whose voxel is not in a volume of this shape."""
    index = skeletons.index_position
    return np.any((index < 0) | (index >= np.asarray(shape)), axis=1)


def check_inside(skeletons: Skeletons, shape: Triple, source: str) -> None:
    """Refuses skeletons of another volume.

    Raises:
      InputError: nodes outside, with their number and the skeletons they belong to.
    """
    rows = np.flatnonzero(outside(skeletons, shape))
    if not len(rows):
        return
    ids = np.unique(skeletons.node_id[rows])
    named = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
    first = tuple(skeletons.index_position[rows[0]].tolist())
    raise InputError(
        f"{len(rows)} of {len(skeletons.node_id)} nodes of {skeletons.source} (skeletons "
        f"{named}; the first node at {first}) lie outside {source} of shape {shape}; "
        "wanted the skeletons of the same volume, x y z"
    )


def _cell_shape(segmentation: Volume) -> Triple:
    """Shape of one read: a chunk, or a part of one where chunks are huge."""
    cell = list(segmentation.chunks)
    while math.prod(cell) > _LARGEST_READ:
        axis = int(np.argmax(cell))
        cell[axis] = -(-cell[axis] // 2)
    return cell[0], cell[1], cell[2]
