"""The segment at every skeleton node, for all thresholds of a grid in one pass.

Edges are added in descending buckets of the grid to one forest, which only ever grows, and
the nodes' segments are read off after each bucket. PyTC's tuner decodes the whole volume
anew for each threshold; here no label volume is written and every chunk is read once.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer

from nisbjax import cluster
from nisbjax.decode import kernels
from nisbjax.decode.boxes import Record, crossing, inside, read_channels, save
from nisbjax.decode.connected_components import (
    Forest,
    Rule,
    check_options,
    edge_range,
    unite,
)
from nisbjax.decode.grid import AT_ONCE, Grid, choose_box
from nisbjax.decode.keep import ImageSource, MaskSource, keep_mask
from nisbjax.decode.seams import Seams
from nisbjax.errors import InputError
from nisbjax.typing import Affinities, NodeSegmentsByThreshold, Triple
from nisbjax.volume import Volume, from_array


def nodes_by_threshold(
    affinities: Affinities | Volume,
    positions: Integer[np.ndarray, "n 3"],
    thresholds: Sequence[float],
    *,
    mask: MaskSource | None = None,
    image: ImageSource | None = None,
    mask_edges: str = "both",
    edge_offset: int = 0,
    memory_gb: float = 4.0,
    box_shape: Triple | None = None,
    scratch: str | os.PathLike | None = None,
) -> NodeSegmentsByThreshold:
    """Segments at some voxels, exactly as `label_affinities` would join them.

    Args:
      affinities: [c x y z], c >= 3, an array or a volume; float16, float32, or uint8
        meaning value / 255.
      positions: voxels of the skeleton nodes, x y z, inside the volume.
      thresholds: in [0, 1], in any order, equal ones too.
      mask, image, mask_edges, edge_offset: as `label_affinities`.
      memory_gb: for everything that is held at once.
      box_shape: instead of what memory allows.
      scratch: folder for the faces of boxes, of a size of 24 bytes for each of their voxels
        and each threshold; the system's temporary folder where None. Emptied at the end.

    Returns:
      [t n] segment of each node at each threshold; 0 = background. Numbers mean the same
      segment within one threshold only.

    Raises:
      InputError: as `label_affinities`, or a position outside of the volume.
    """
    if not isinstance(affinities, Volume):
        affinities = from_array(affinities, "cxyz")
    if affinities.shape[0] < 3:
        raise InputError(
            f"{affinities.source} has {affinities.shape[0]} channel(s); wanted at least "
            "3, the edges on x, y and z"
        )
    check_options(edge_offset, mask_edges)
    shape = affinities.spatial_shape
    keep_mask(mask, image, shape)
    outside = ((positions < 0) | (positions >= np.array(shape))).any(1)
    if outside.any():
        raise InputError(
            f"{outside.sum()} of {len(positions)} skeleton nodes lie outside of the "
            f"affinities {shape}, the first at {positions[outside][0].tolist()}; wanted "
            "skeletons of the same volume, in voxels"
        )
    lows = [int(edge_range(affinities.dtype, t).low) for t in thresholds]
    levels = sorted(set(lows), reverse=True)
    # Affinities and what they are read from, the forest, a mask and its image, faces.
    need = 4.5 * affinities.dtype.itemsize + 8
    grid = Grid(
        shape, box_shape or choose_box(affinities, need, memory_gb, divide=True)
    )
    result = np.zeros((len(levels), len(positions)), np.uint64)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        work = _BoxSweep(
            affinities,
            pathlib.Path(folder),
            grid,
            levels,
            positions,
            edge_offset,
            mask,
            image,
            mask_edges,
        )
        for level in range(len(levels)):
            work.at(level).mkdir()
        boxes = range(len(grid.boxes))
        for found in cluster.map_boxes(
            work, boxes, workers=AT_ONCE, description="sweep"
        ):
            result[:, found.nodes] = found.segments
        if len(boxes) > 1:
            for level in range(len(levels)):
                _join(work, level, result[level])
    return result[[levels.index(low) for low in lows]]


@dataclasses.dataclass(frozen=True)
class _Found:
    """Labels of the nodes in one box, by level; where there is one box, segments."""

    nodes: Int[np.ndarray, " m"]
    segments: Int[np.ndarray, "t m"]


@dataclasses.dataclass(frozen=True)
class _BoxSweep:
    """`sweep(index)` follows one box down the levels and notes its faces at each."""

    affinities: Volume
    folder: pathlib.Path
    grid: Grid
    levels: list[int]
    positions: Integer[np.ndarray, "n 3"]
    edge_offset: int
    mask: MaskSource | None
    image: ImageSource | None
    mask_edges: str

    def at(self, level: int) -> pathlib.Path:
        return self.folder / str(level)

    @functools.cached_property
    def nodes_by_box(self) -> list[np.ndarray]:
        """Rows of `positions` in each box."""
        at = (self.positions // np.array(self.grid.box_shape)).T
        box = np.asarray(np.ravel_multi_index(tuple(at), self.grid.counts))
        order = np.argsort(box, kind="stable")
        bounds = np.searchsorted(box[order], np.arange(len(self.grid.boxes) + 1))
        return [order[a:b] for a, b in itertools.pairwise(bounds)]

    def __call__(self, index: int) -> _Found:
        box = self.grid.boxes[index]
        keep = keep_mask(self.mask, self.image, self.grid.shape)
        values = read_channels(self.affinities, box)
        faces = crossing(
            values, self.grid, index, self.edge_offset, keep, self.mask_edges
        )
        nodes = self.nodes_by_box[index]
        own = np.ravel_multi_index((self.positions[nodes] - box.start).T, box.shape)
        seams = self.grid.seams(index)
        voxels = [own, *(_voxels(box.shape, *seam) for seam in seams)]
        ends = np.cumsum([len(v) for v in voxels])
        voxels = np.concatenate(voxels).astype(np.uint64)
        forest = Forest.over(np.empty(box.shape, np.uint32))
        bits, _, above = edge_range(values.dtype, 0.0)
        high = above
        segments = np.zeros((len(self.levels), len(nodes)), np.int64)
        for level, threshold in enumerate(self.levels):
            low = above.dtype.type(threshold)
            rule = Rule(
                low,
                high,
                above,
                bool(self.edge_offset),
                keep is not None,
                self.mask_edges == "both",
            )
            own_keep, planes = inside(keep, box), box.shape[0]
            unite(values.view(bits), own_keep, rule, forest, 0, planes)
            high = low
            found = np.zeros(len(voxels), np.uint64)
            kernels.find_segments(*forest, voxels, found)
            if not seams:
                segments[level] = found
                continue
            first, labels = np.unique(
                np.append(found, np.uint64(0)), return_inverse=True
            )
            parts = np.split(labels[:-1], ends[:-1])
            segments[level] = parts[0]
            record: dict[str, np.ndarray] = {}
            record |= {f"edges{a}": (f > low) & (f <= above) for a, f in faces.items()}
            for (axis, side), part in zip(seams, parts[1:], strict=True):
                face = list(box.shape)
                del face[axis]
                record[f"face{axis}{side}"] = part.reshape(face).astype(np.uint32)
            first = np.maximum(first.astype(np.int64) - 1, 0)
            record |= {"first": first, "size": np.zeros_like(first)}
            save(self.at(level) / f"{index}.npz", record, durable=False)
        return _Found(nodes, segments)


def _voxels(shape: Triple, axis: int, side: int) -> Int[np.ndarray, " m"]:
    """Flat indices of a face's voxels."""
    index = [np.arange(size) for size in shape]
    index[axis] = index[axis][[side]]
    return np.ravel_multi_index(np.ix_(*index), shape).ravel()


def _join(work: _BoxSweep, level: int, labels: np.ndarray) -> None:
    """Turns the nodes' labels in their boxes into segments of the volume, in place."""
    seams = Seams(work.at(level), work.grid, work.edge_offset)
    for index, first in seams.segments():
        nodes = work.nodes_by_box[index]
        own = labels[nodes].astype(np.int64)
        record = Record(work.at(level), work.grid, index)
        at = (work.positions[nodes] - record.box.start).T
        flat = np.asarray(np.ravel_multi_index(tuple(at), record.box.shape))
        # A voxel that only edges through a face join has no label in its box.
        alone = (own == 0) & np.isin(flat, record.orphans)
        own[alone] = len(record.first) + np.searchsorted(record.orphans, flat[alone])
        labels[nodes] = np.where(own > 0, first[own] + 1, 0)
