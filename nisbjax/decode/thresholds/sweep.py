"""The segment at every skeleton node, for all thresholds of a grid in one pass.

Affinities become levels of the grid. A voxel that is no node goes to the neighbour to which
its edge is strongest, one decode finds what that joins, and one forest over these parts
holds the components at each level (`thresholds.spanning`). PyTC's tuner decodes the
whole volume again for each threshold; here no label volume is written and every chunk is read
once. Of a box that has been read only its nodes and its faces stay, and a face is forgotten
when the box behind it has come.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer

from nisbjax.decode.channels import short_range
from nisbjax.decode.connected_components import edge_range, label_box
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.nonfinite import Nonfinite
from nisbjax.decode.streamed.boxes import crossing, read_channels
from nisbjax.decode.streamed.grid import AT_ONCE, BoxGrid, choose_box
from nisbjax.decode.thresholds import spanning
from nisbjax.decode.thresholds.frontier import BoxPart, Frontier, contract_forest
from nisbjax.decode.thresholds.levels import join_strongest, read_levels
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import MaskSource
from nisbjax.parallel import cluster
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.volume import Volume, from_array
from nisbjax.typing import Affinities, NodeSegmentsByThreshold, Triple

_LEVELS = 255  # that fit into a byte beside "no edge"


def nodes_by_threshold(
    affinities: Affinities | Volume,
    positions: Integer[np.ndarray, "n 3"],
    thresholds: Sequence[float],
    *,
    mask: MaskSource | None = None,
    edges: MaskedEdges | None = None,
    memory_gb: float = 4.0,
    box_shape: Triple | None = None,
) -> NodeSegmentsByThreshold:
    """Segments at some voxels, exactly as `label_affinities` would join them.

    Args:
      affinities: [c x y z], an array or a volume; float16, float32, or uint8 meaning
        value / 255. Channels are taken as `label_volume` does.
      positions: voxels of the skeleton nodes, x y z, inside the volume.
      thresholds: in [0, 1], in any order, equal ones too; at most 255 different ones.
      mask: [x y z], 0 (or False) = masked; or a specification.
      edges: instead of `mask`, which edges count, where not all are stored at their source.
      memory_gb: for the boxes at work. The faces that wait for their other side take up to
        60 bytes more for each voxel of the volume's smallest cross-section.
      box_shape: instead of what memory allows; the partition does not depend on it.

    Returns:
      [t n] segment of each node at each threshold; 0 = background. Numbers mean the same
      segment within one threshold only.

    Raises:
      InputError: as `label_affinities`, a position outside of the volume, or too many
        thresholds.
    """
    if not isinstance(affinities, Volume):
        affinities = from_array(affinities, "cxyz")
    require_chunks_fit(affinities, memory_gb)
    edges = MaskedEdges.of(edges, mask)
    affinities, edge_offset = short_range(affinities, edges.edge_offset)
    edges = edges.stored_at(edge_offset)
    shape = affinities.spatial_shape
    edges.require_shape(shape)
    outside = ((positions < 0) | (positions >= np.array(shape))).any(1)
    if outside.any():
        raise InputError(
            f"{outside.sum()} of {len(positions)} skeleton nodes lie outside of the "
            f"affinities {shape}, the first at {positions[outside][0].tolist()}; wanted "
            "skeletons of the same volume, in voxels"
        )
    ranges = [edge_range(affinities.dtype, t) for t in thresholds]
    lows, levels = np.unique([int(r.low) for r in ranges], return_inverse=True)
    if len(lows) > _LEVELS:
        raise InputError(
            f"{len(lows)} different thresholds came; wanted at most {_LEVELS} in one pass"
        )
    if not ranges:
        return np.zeros((0, len(positions)), np.uint64)
    # Affinities and what they are read from, their levels, a mask and its image, faces;
    # or levels, labels and a forest over these.
    need = max(4.5 * affinities.dtype.itemsize + 8, 14.0)
    grid = BoxGrid(
        shape, box_shape or choose_box(affinities, need, memory_gb, divide=True)
    )
    sweep = _BoxSweep(
        affinities,
        grid,
        lows.astype(ranges[0].bits),
        ranges[0].high,
        positions,
        edges,
    )
    # The faces that wait form a cross-section of the longest axis.
    axis = int(np.argmax(shape))
    order = sorted(range(len(grid.boxes)), key=lambda i: (grid.position(i)[axis], i))
    frontier = Frontier(grid, len(positions), len(lows))
    found = cluster.map_boxes(sweep, order, workers=AT_ONCE, description="sweep")
    nonfinite = Nonfinite()
    for index, (part, seen) in zip(order, found, strict=True):
        frontier.add(index, part)
        nonfinite += seen
    nonfinite.warn(affinities.source)
    return frontier.segments()[levels]


@dataclasses.dataclass(frozen=True)
class _BoxSweep:
    """`sweep(index)` contracts one box to its nodes and faces and what joins them."""

    affinities: Volume
    grid: BoxGrid
    lows: Integer[np.ndarray, " t"]
    high: np.unsignedinteger
    positions: Integer[np.ndarray, "n 3"]
    edges: MaskedEdges

    @functools.cached_property
    def nodes_by_box(self) -> list[np.ndarray]:
        """Rows of `positions` in each box."""
        at = (self.positions // np.array(self.grid.box_shape)).T
        box = np.asarray(np.ravel_multi_index(tuple(at), self.grid.counts))
        order = np.argsort(box, kind="stable")
        bounds = np.searchsorted(box[order], np.arange(len(self.grid.boxes) + 1))
        return [order[a:b] for a, b in itertools.pairwise(bounds)]

    def __call__(self, index: int) -> tuple[BoxPart, Nonfinite]:
        box = self.grid.boxes[index]
        values = read_channels(self.affinities, box)
        nonfinite = Nonfinite.of(values, box.start)
        levels, leaving = self._levels(values, box, index)
        del values
        return self._contract(levels, leaving, box, index), nonfinite

    def _contract(self, levels, leaving, box: Box, index: int) -> BoxPart:
        """What of a box can still be met, from the levels of its edges."""
        top = len(self.lows)
        rows = self.nodes_by_box[index]
        at = np.ravel_multi_index((self.positions[rows] - box.start).T, box.shape)
        faces = {seam: _voxels(box.shape, *seam) for seam in self.grid.seams(index)}
        wanted = np.zeros(box.shape, bool)
        for voxels in (at, *faces.values()):
            wanted.reshape(-1)[voxels] = True
        foreground = np.empty(box.shape, np.uint8)
        join_strongest(levels, wanted.view(np.uint8), np.uint8(top), foreground)
        terminals = np.flatnonzero(wanted)
        del wanted
        vertices, parent, level = _span(levels, terminals, top)
        side = 0 if self.edges.edge_offset else -1
        for axis, face in leaving.items():
            own = foreground[_plane(axis, side)]
            np.maximum(own, face, out=own)
        return BoxPart(
            foreground.reshape(-1)[terminals],
            contract_forest(parent, level, vertices, top),
            np.asarray(np.searchsorted(terminals, at)),
            rows,
            {
                (axis, s): (
                    np.searchsorted(terminals, voxels),
                    leaving[axis].ravel() if s == side else None,
                )
                for (axis, s), voxels in faces.items()
            },
        )

    def _levels(self, values, box: Box, index: int):
        """Levels of the edges inside of a box, and by axis of those that leave it."""
        crossing(values, self.grid, index, self.edges)
        mask = self.edges.mask_of(box)
        masked = mask is not None
        if mask is None:
            mask = np.empty((0, 0, 0), bool)
        mask = np.ascontiguousarray(mask).view(np.uint8)
        bits = np.ascontiguousarray(values).view(self.lows.dtype)
        leaving = {}
        for axis in range(3):
            at = _plane(axis, 0 if self.edges.edge_offset else -1)
            face = bits[axis][at]
            found = np.where(face <= self.high, np.searchsorted(self.lows, face), 0)
            if masked:
                found *= mask[at] != 0
            leaving[axis] = found.astype(np.uint8)
        levels = np.empty(values.shape, np.uint8)
        read_levels(
            bits,
            mask,
            self.lows,
            self.high,
            bool(self.edges.edge_offset),
            masked,
            self.edges.both,
            levels,
        )
        return levels, leaving


def _span(levels, terminals, top):
    """Vertices of the terminals in a forest over a box, its links and their levels."""
    below = (top - 0.5) / 255  # as a threshold of levels that are uint8 affinities
    threads = max(1, len(os.sched_getaffinity(0)) // AT_ONCE)
    names, count = label_box(levels, below, MaskedEdges(1), threads=threads)
    vertices = names.reshape(-1)[terminals]
    alone = np.flatnonzero(vertices == 0)
    vertices[alone] = np.arange(count + 1, count + 1 + len(alone))
    names.reshape(-1)[terminals] = vertices  # the others have no edge at all
    parent = np.empty(count + 1 + len(alone), np.uint32)
    level = np.empty(len(parent), np.uint8)
    spanning.span(levels, names, parent, level)
    return vertices.astype(np.int64), parent, level


def _plane(axis: int, side: int) -> tuple[slice | int, ...]:
    """Index of the first (0) or last (-1) plane on an axis."""
    index: list[slice | int] = [slice(None)] * 3
    index[axis] = side
    return tuple(index)


def _voxels(shape: Triple, axis: int, side: int) -> Int[np.ndarray, " m"]:
    """Flat indices of a face's voxels."""
    index = [np.arange(size) for size in shape]
    index[axis] = index[axis][[side]]
    return np.ravel_multi_index(np.ix_(*index), shape).ravel()
