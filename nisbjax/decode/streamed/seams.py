"""Joins the labels of boxes across their seams.

As PyTC's streamed decoder unites the labels of touching chunks; but layers of boxes across
the longest axis are united each by itself and then two by two (`seam_tree`), whoever has
time, and all tables lie on disk. Memory is thus that of one layer for each worker, however
long the volume is. Three boxes of two voxels, each a layer, with the edges 0-1, 1-2 and 4-5:

    voxel             0   1 | 2   3 | 4   5
    label of its box  1   1 | 0   0 | 1   1

Edge 1-2 crosses a seam. Voxel 2 has no other, so it is background to its box alone: an
orphan, with the label 1 behind the 0 labels of its box. The key of a label is the label plus
those of the boxes before it in its layer; here each box is the first of its layer:

    crossing 0    key 1 of layer 0 is key 1 of layer 1     no other seam is crossed
    leaf 0        keys [1], first voxel 0, size 2
    leaf 1        keys [1], first voxel 2, size 1
    leaf 2        keys [], since its label 1 touches no crossing
    after join    leaves 0 and 1: first voxel 0, size 3
"""

import dataclasses
import itertools
import pathlib

import numpy as np

from nisbjax.decode.streamed.boxes import BoxRecord
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.streamed.seam_tree import (
    Keys,
    Mapper,
    SeamTree,
    gather,
    one_by_one,
    unite,
)
from nisbjax.store import npy


@dataclasses.dataclass(frozen=True)
class Seams:
    """The records of all boxes of a volume, as the `BoxDecoder` left them.

    Attributes:
      folder: of the records, and of the tree that is made of them.
      grid: of boxes.
      edge_offset: as `label_affinities`; says which box holds the edges of a seam.
    """

    folder: pathlib.Path
    grid: BoxGrid
    edge_offset: int

    def join(self, mapper: Mapper = one_by_one) -> None:
        """Makes the tree: all leaves know first voxel and size of their components.

        May be interrupted and called again.

        Args:
          mapper: does the work on each of several boxes, layers or nodes of the tree; its
            workers see `folder`.
        """
        layers = range(len(self.layers()))
        list(mapper(self._find_orphans, range(len(self.grid.boxes))))
        list(mapper(self._cross, layers[:-1]))
        list(mapper(self._unite_layer, layers))
        self.tree.merge(mapper)
        self.tree.descend(mapper, ("first", "size"))

    def record(self, index: int) -> BoxRecord:
        """What a box left for its neighbours."""
        return BoxRecord(self.folder, self.grid, index)

    def layers(self) -> list[list[int]]:
        """Boxes across the axis that has most of them."""
        axis = self._along
        order = np.arange(len(self.grid.boxes)).reshape(self.grid.counts)
        return [part.ravel().tolist() for part in np.moveaxis(order, axis, 0)]

    @property
    def tree(self) -> SeamTree:
        """Of the layers."""
        return SeamTree(self.folder, len(self.layers()))

    def starts(self, layer: list[int]) -> dict[int, int]:
        """What is added to the labels of each box of a layer to make keys."""
        records = [self.record(index) for index in layer]
        lengths = [len(r.first) + len(r.orphans) for r in records]
        ends = itertools.accumulate(lengths, initial=0)
        return dict(zip(layer, ends, strict=False))

    def labels_of(self, index: int) -> tuple[Keys, Keys]:
        """First voxels in the volume and sizes of a box's labels and orphans."""
        record = self.record(index)
        first = np.concatenate([record.first, record.orphans])
        voxels = np.unravel_index(first, record.box.shape)
        voxels = [v + s for v, s in zip(voxels, record.box.start, strict=True)]
        size = np.concatenate([record.size, np.ones_like(record.orphans)])
        return np.ravel_multi_index(voxels, self.grid.shape), size

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

    @property
    def _along(self) -> int:
        """The axis that has most boxes."""
        return int(np.argmax(self.grid.counts))

    def _cross(self, k: int) -> None:
        """Notes which labels of a layer continue in the next."""
        layers = self.layers()
        starts = self.starts(layers[k]) | self.starts(layers[k + 1])
        pairs = [self._pairs(index, self._along, starts) for index in layers[k]]
        npy.save(self.tree.crossing(k), np.hstack([np.empty((2, 0), np.int64), *pairs]))

    def _unite_layer(self, k: int) -> None:
        """Makes the leaf of a layer: its components that touch a seam."""
        layers, tree = self.layers(), self.tree
        layer, starts = layers[k], self.starts(layers[k])
        across = [axis for axis in range(3) if axis != self._along]
        inside = [self._pairs(i, axis, starts) for i in layer for axis in across]
        inside = np.hstack([np.empty((2, 0), np.int64), *inside])
        none = np.empty(0, np.int64)
        low = np.unique(npy.load(tree.crossing(k - 1))[1]) if k else none
        last = k + 1 == len(layers)
        high = none if last else np.unique(npy.load(tree.crossing(k))[0])
        keys = np.unique(np.concatenate([inside.ravel(), low, high]))
        ends, others = np.searchsorted(keys, inside)
        count, component = unite(ends, others, len(keys))
        leaf = gather(component, count, *self._open(layer, starts, keys))
        leaf |= {"keys": keys, "component": component}
        for side, outer in (("low", low), ("high", high)):
            leaf[f"keys_{side}"] = outer
            leaf[f"component_{side}"] = component[np.searchsorted(keys, outer)]
        tree.save(0, k, leaf)

    def _open(self, layer, starts, keys) -> tuple[Keys, Keys]:
        """First voxels and sizes of the labels at seams."""
        parts = [(np.empty(0, np.int64),) * 2]
        for index in layer:
            first, size = self.labels_of(index)
            start = starts[index]
            at = slice(*np.searchsorted(keys, (start, start + len(first))))
            parts.append((first[keys[at] - start], size[keys[at] - start]))
        first, size = zip(*parts, strict=True)
        return np.concatenate(first), np.concatenate(size)
