"""Joins the labels of boxes across their seams and numbers the components of the whole.

As PyTC's streamed decoder unites the labels of touching chunks; but layers of boxes across
the longest axis are united each by itself and then two by two (`seam_tree`), whoever has
time, and all tables lie on disk. Memory is thus that of one layer for each worker, however
long the volume is.
"""

import dataclasses
import functools
import itertools
import pathlib

import numpy as np

from nisbjax.decode.segment_counts import SegmentCounts
from nisbjax.decode.streamed.boxes import Record
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.streamed.scratch import table_path
from nisbjax.decode.streamed.seam_tree import (
    Keys,
    Run,
    SeamTree,
    gather,
    one_by_one,
    unite,
)

_ROWS = 1 << 17  # of which counts are in memory at once


@dataclasses.dataclass(frozen=True)
class Seams:
    """The records of all boxes of a volume, as the `BoxDecoder` left them.

    Attributes:
      folder: of the records and of the tables made here.
      grid: of boxes.
      edge_offset: as `label_affinities`; says which box holds the edges of a seam.
    """

    folder: pathlib.Path
    grid: BoxGrid
    edge_offset: int

    def record(self, index: int) -> Record:
        return Record(self.folder, self.grid, index)

    def layers(self) -> list[list[int]]:
        """Boxes across the axis that has most of them."""
        axis = self._along
        order = np.arange(len(self.grid.boxes)).reshape(self.grid.counts)
        return [part.ravel().tolist() for part in np.moveaxis(order, axis, 0)]

    def _find_orphans(self, index: int) -> None:
        """Notes the voxels of a box whose only edges come from other boxes."""
        record = self.record(index)
        step, side = (1, -1) if self.edge_offset else (-1, 0)
        found = [np.empty(0, np.int64)]
        for axis in range(3):
            other = self.grid.neighbour(index, axis, step)
            if other is not None:
                alone = self.record(other).edges(axis) & (record.face(axis, side) == 0)
                found.append(record.positions(axis, side, alone))
        record.set_orphans(np.unique(np.concatenate(found)))

    def _pairs(self, index: int, axis: int, starts: dict[int, int]):
        """Which labels a box shares with the box behind it on an axis.

        Args:
          starts: of each box, what is added to its labels to make keys.

        Returns:
          Distinct pairs of keys, of this box and of that behind.
        """
        behind = self.grid.neighbour(index, axis, 1)
        if behind is None:
            return np.empty((2, 0), np.int64)
        before, after = self.record(index), self.record(behind)
        edges = (after if self.edge_offset else before).edges(axis)
        a, b = before.labels(axis, -1, edges), after.labels(axis, 0, edges)
        width = len(after.first) + len(after.orphans) + 1
        distinct = np.unique(a * width + b)
        found = np.stack([distinct // width, distinct % width])
        return found + np.array([[starts[index]], [starts[behind]]])

    def number(self, min_size: int, run: Run = one_by_one) -> SegmentCounts:
        """Writes the tables: labels 1..N by first voxels, 0 for what is below `min_size`.

        May be interrupted and called again.

        Args:
          min_size: in voxels.
          run: does the work on each of several boxes, layers or nodes of the tree; its
            workers see `folder`.
        """
        layers = range(len(self.layers()))
        list(run(self._find_orphans, range(len(self.grid.boxes))))
        list(run(self._cross, layers[:-1]))
        list(run(self._unite_layer, layers))
        self.tree.merge(run)
        self.tree.descend(run, ("first", "size"))
        counts = SegmentCounts(int(np.prod(self.grid.shape)))
        for found in run(functools.partial(self._count, min_size=min_size), layers):
            counts.merge(found)
        self._accumulate_rows()
        list(run(functools.partial(self._label_firsts, min_size=min_size), layers))
        self.tree.ascend_labels(run)
        self.tree.descend(run, ("label",))
        list(run(self._complete_tables, layers))
        return counts

    @property
    def tree(self) -> SeamTree:
        return SeamTree(self.folder, len(self.layers()))

    @property
    def _along(self) -> int:
        """The axis that has most boxes."""
        return int(np.argmax(self.grid.counts))

    def _cross(self, k: int) -> None:
        """Notes which labels of a layer continue in the next."""
        layers = self.layers()
        starts = self._starts(layers[k]) | self._starts(layers[k + 1])
        pairs = [self._pairs(index, self._along, starts) for index in layers[k]]
        np.save(self.tree.crossing(k), np.hstack([np.empty((2, 0), np.int64), *pairs]))

    def _unite_layer(self, k: int) -> None:
        """Makes the leaf of a layer: its components that touch a seam."""
        layers, tree = self.layers(), self.tree
        layer, starts = layers[k], self._starts(layers[k])
        across = [axis for axis in range(3) if axis != self._along]
        inside = [self._pairs(i, axis, starts) for i in layer for axis in across]
        inside = np.hstack([np.empty((2, 0), np.int64), *inside])
        none = np.empty(0, np.int64)
        low = np.unique(np.load(tree.crossing(k - 1))[1]) if k else none
        last = k + 1 == len(layers)
        high = none if last else np.unique(np.load(tree.crossing(k))[0])
        keys = np.unique(np.concatenate([inside.ravel(), low, high]))
        ends, others = np.searchsorted(keys, inside)
        count, component = unite(ends, others, len(keys))
        leaf = gather(component, count, *self._open(layer, starts, keys))
        leaf |= {"keys": keys, "component": component}
        for side, outer in (("low", low), ("high", high)):
            leaf[f"keys_{side}"] = outer
            leaf[f"component_{side}"] = component[np.searchsorted(keys, outer)]
        tree.save(0, k, leaf)

    def _count(self, k: int, min_size: int) -> SegmentCounts:
        """Counts the segments that begin in a layer, and where in its boxes."""
        layer = self.layers()[k]
        starts, leaf = self._starts(layer), self.tree.load(0, k)
        counts = SegmentCounts(0)
        for index in layer:
            box = self._members(leaf, index, starts)
            kept = box.kept(min_size)
            counts.add(box.size[kept])
            rows = np.bincount(box.row[kept], minlength=box.rows)
            np.save(self._rows(index), rows.reshape(box.shape[:2]))
        return counts

    def _starts(self, layer: list[int]) -> dict[int, int]:
        records = [self.record(index) for index in layer]
        lengths = [len(r.first) + len(r.orphans) for r in records]
        ends = itertools.accumulate(lengths, initial=0)
        return dict(zip(layer, ends, strict=False))

    def _open(self, layer, starts, keys) -> tuple[Keys, Keys]:
        """First voxels and sizes of the labels at seams."""
        parts = [(np.empty(0, np.int64),) * 2]
        for index in layer:
            first, size = self._own(index)
            start = starts[index]
            at = slice(*np.searchsorted(keys, (start, start + len(first))))
            parts.append((first[keys[at] - start], size[keys[at] - start]))
        first, size = zip(*parts, strict=True)
        return np.concatenate(first), np.concatenate(size)

    def _own(self, index: int) -> tuple[Keys, Keys]:
        """First voxels in the volume and sizes of a box's labels and orphans."""
        record = self.record(index)
        first = np.concatenate([record.first, record.orphans])
        voxels = np.unravel_index(first, record.box.shape)
        voxels = [v + s for v, s in zip(voxels, record.box.start, strict=True)]
        size = np.concatenate([record.size, np.ones_like(record.orphans)])
        return np.ravel_multi_index(voxels, self.grid.shape), size

    def _members(
        self, layer: dict[str, np.ndarray], index: int, starts: dict[int, int]
    ) -> "_Members":
        first, size = self._own(index)
        start = starts[index]
        at = slice(*np.searchsorted(layer["keys"], (start, start + len(first))))
        component = layer["component"][at]
        opened = layer["keys"][at] - start
        own = np.ones(len(first), bool)
        own[0] = False  # background
        own[opened] = first[opened] == layer["first"][component]
        size[opened] = layer["size"][component]
        box = self.grid.boxes[index]
        x, y, _ = np.unravel_index(first, self.grid.shape)
        row = (x - box.start[0]) * box.shape[1] + y - box.start[1]
        return _Members(box.shape, first, size, own, row, opened, component)

    def _accumulate_rows(self) -> None:
        """Turns counts of first voxels by row into the last label before each row."""
        label = 0
        ny = self.grid.shape[1]
        by_slab = np.arange(len(self.grid.boxes)).reshape(self.grid.counts[0], -1)
        for slab in by_slab.tolist():
            planes = self.grid.boxes[slab[0]].shape[0]
            step = max(1, _ROWS // (ny * self.grid.counts[2]))
            for x in range(0, planes, step):
                part = slice(x, min(x + step, planes))
                counts = np.zeros((part.stop - x, ny, self.grid.counts[2]), np.int64)
                places = []
                for index in slab:
                    y = self.grid.boxes[index].slices[1]
                    places.append((slice(None), y, self.grid.position(index)[2]))
                    rows = np.load(self._rows(index), mmap_mode="r")
                    counts[places[-1]] = rows[part]
                after = np.cumsum(counts).reshape(counts.shape) + label
                label = int(after[-1, -1, -1])
                for index, place in zip(slab, places, strict=True):
                    rows = np.load(self._rows(index), mmap_mode="r+")
                    rows[part] = (after - counts)[place]
                    rows.flush()

    def _label_firsts(self, k: int, min_size: int) -> None:
        """Labels the segments that begin in a layer."""
        layer = self.layers()[k]
        starts, leaf = self._starts(layer), self.tree.load(0, k)
        leaf["label"] = np.zeros(len(leaf["first"]), np.int64)
        for index in layer:
            box = self._members(leaf, index, starts)
            kept = np.flatnonzero(box.kept(min_size))
            kept = kept[np.argsort(box.first[kept])]
            row = box.row[kept]
            in_row = np.arange(len(row)) - np.searchsorted(row, row)
            table = np.zeros(len(box.first), np.int64)
            table[kept] = np.load(self._rows(index)).ravel()[row] + in_row + 1
            np.save(table_path(self.folder, index), table)
            np.maximum.at(leaf["label"], box.component, table[box.open])
        self.tree.save(0, k, leaf)

    def _complete_tables(self, k: int) -> None:
        """Labels what a layer has of segments that begin elsewhere."""
        layer = self.layers()[k]
        starts, leaf = self._starts(layer), self.tree.load(0, k)
        for index in layer:
            box = self._members(leaf, index, starts)
            table = np.load(table_path(self.folder, index))
            table[box.open] = leaf["label"][box.component]
            np.save(table_path(self.folder, index), table)

    def _rows(self, index: int) -> pathlib.Path:
        return self.folder / f"{index}.rows.npy"


@dataclasses.dataclass(frozen=True)
class _Members:
    """The labels of a box and its orphans, 0 first: what they are in the whole volume."""

    shape: tuple[int, int, int]
    first: Keys  # own first voxel
    size: Keys  # of the whole component
    own: np.ndarray  # whether the component begins with this label
    row: Keys  # of the box, in which the label begins
    open: Keys  # labels at seams
    component: Keys  # theirs, in the layer

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[1]

    def kept(self, min_size: int) -> np.ndarray:
        return self.own & (self.size >= min_size)
