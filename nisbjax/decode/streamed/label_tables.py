"""The final label of every label of a box: segments numbered as in memory, 1..N.

Labels follow the C order of first voxels over the whole volume, and every row along z runs
through several boxes. So each box counts what begins in each of its rows, and the last label
before its part of a row follows from the counts. PyTC's streamed decoder numbers chunk by
chunk, and its labels depend on the chunks. Two boxes along z, of 2 x 2 rows of two voxels:

    row (x y)      box 0    box 1    begins in    last label before
                                     box 0  1     box 0  1
    0 0            A A      . B      A      B     0      1
    0 1            . .      . B                   2      2
    1 0            . C      C C      C            2      3
    1 1            . .      D D             D     3      3

A is 1, B is 2, C is 3 and D is 4. Box 0 knows C as its label 2: its table is [0, 1, 3]. Box 1
has the labels B, C, D, of which C begins elsewhere: it learns from the tree that C is 3, and
its table is [0, 2, 3, 4].
"""

import dataclasses
import math
import pathlib

import numpy as np

from nisbjax.decode.segment_counts import SegmentCounts
from nisbjax.decode.streamed.layers import LayeredLabels, WholeLabels
from nisbjax.decode.streamed.scratch import table_path
from nisbjax.decode.streamed.seam_tree import Keys, Mapper, one_by_one
from nisbjax.store import npy

_ROWS = 1 << 17  # of which counts are in memory at once


@dataclasses.dataclass(frozen=True)
class LabelTables:
    """Tables of final labels, one for each box, beside its record.

    Attributes:
      seams: joined.
      min_size: segments of fewer voxels become 0.
    """

    seams: LayeredLabels
    min_size: int

    def write(self, mapper: Mapper = one_by_one) -> SegmentCounts:
        """Numbers the segments and writes the table of each box.

        May be interrupted and called again.

        Args:
          mapper: as `LayeredLabels.join`.
        """
        grid, tree = self.seams.grid, self.seams.tree
        layers = range(len(self.seams.layers()))
        counts = SegmentCounts(int(np.prod(grid.shape)))
        for found in mapper(self._count, layers):
            counts.merge(found)
        self._accumulate_rows()
        list(mapper(self._label_firsts, layers))
        tree.ascend_labels(mapper)
        tree.descend(mapper, ("label",))
        list(mapper(self._complete_tables, layers))
        return counts

    def _count(self, k: int) -> SegmentCounts:
        """Counts the segments that begin in a layer, and where in its boxes."""
        counts = SegmentCounts(0)
        for index, whole in self.seams.whole(k):
            box = self._members(index, whole)
            kept = box.kept(self.min_size)
            counts.add(whole.size[kept])
            rows = np.bincount(box.row[kept], minlength=box.rows)
            npy.save(self._rows(index), rows.reshape(box.shape[:2]))
        return counts

    def _label_firsts(self, k: int) -> None:
        """Labels the segments that begin in a layer."""
        leaf = self.seams.tree.load(0, k)
        leaf["label"] = np.zeros(len(leaf["first"]), np.int64)
        for index, whole in self.seams.whole(k):
            box = self._members(index, whole)
            kept = np.flatnonzero(box.kept(self.min_size))
            kept = kept[np.argsort(whole.own_first[kept])]
            row = box.row[kept]
            in_row = np.arange(len(row)) - np.searchsorted(row, row)
            table = np.zeros(len(whole.first), np.int64)
            table[kept] = npy.load(self._rows(index)).ravel()[row] + in_row + 1
            npy.save(table_path(self.seams.folder, index), table)
            np.maximum.at(leaf["label"], whole.component, table[whole.open])
        self.seams.tree.save(0, k, leaf)

    def _complete_tables(self, k: int) -> None:
        """Labels what a layer has of segments that begin elsewhere."""
        label = self.seams.tree.load(0, k)["label"]
        for index, whole in self.seams.whole(k):
            table = npy.load(table_path(self.seams.folder, index))
            table[whole.open] = label[whole.component]
            npy.save(table_path(self.seams.folder, index), table)

    def _members(self, index: int, whole: WholeLabels) -> "_Members":
        own = whole.own_first == whole.first
        own[0] = False  # background
        voxels = math.prod(self.seams.grid.shape)
        own &= whole.own_first < voxels
        box = self.seams.grid.boxes[index]
        somewhere = np.minimum(whole.own_first, voxels - 1)
        x, y, _ = np.unravel_index(somewhere, self.seams.grid.shape)
        row = (x - box.start[0]) * box.shape[1] + y - box.start[1]
        return _Members(box.shape, whole, own, row)

    def _accumulate_rows(self) -> None:
        """Turns counts of first voxels by row into the last label before each row."""
        label = 0
        ny = self.seams.grid.shape[1]
        by_slab = np.arange(len(self.seams.grid.boxes)).reshape(
            self.seams.grid.counts[0], -1
        )
        for slab in by_slab.tolist():
            planes = self.seams.grid.boxes[slab[0]].shape[0]
            step = max(1, _ROWS // (ny * self.seams.grid.counts[2]))
            for x in range(0, planes, step):
                part = slice(x, min(x + step, planes))
                counts = np.zeros(
                    (part.stop - x, ny, self.seams.grid.counts[2]), np.int64
                )
                places = []
                for index in slab:
                    y = self.seams.grid.boxes[index].slices[1]
                    places.append((slice(None), y, self.seams.grid.position(index)[2]))
                    rows = npy.mapped(self._rows(index))
                    counts[places[-1]] = rows[part]
                after = np.cumsum(counts).reshape(counts.shape) + label
                label = int(after[-1, -1, -1])
                for index, place in zip(slab, places, strict=True):
                    rows = npy.mapped(self._rows(index), "r+")
                    rows[part] = (after - counts)[place]
                    rows.flush()

    def _rows(self, index: int) -> pathlib.Path:
        return self.seams.folder / f"{index}.rows.npy"


@dataclasses.dataclass(frozen=True)
class _Members:
    """The labels of a box and its orphans, and where their components begin."""

    shape: tuple[int, int, int]
    whole: WholeLabels
    own: np.ndarray  # whether the component begins with this label
    row: Keys  # of the box, in which the label begins

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[1]

    def kept(self, min_size: int) -> np.ndarray:
        return self.own & (self.whole.size >= min_size)
