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

import numpy as np

from nisbjax.decode.streamed.layers import FacingLabels, Pairs
from nisbjax.decode.streamed.seam_tree import Mapper, one_by_one


@dataclasses.dataclass(frozen=True)
class Seams(FacingLabels):
    """The records of all boxes of a volume, as the `ComponentsDecoder` left them.

    Attributes:
      edge_offset: as `label_affinities`; says which box holds the edges of a seam.
    """

    edge_offset: int

    def join(self, mapper: Mapper = one_by_one) -> None:
        """As `LayeredLabels.join`, orphans among the labels."""
        list(mapper(self._find_orphans, range(len(self.grid.boxes))))
        super().join(mapper)

    def shared(self, index: int, behind: int, axis: int) -> Pairs:
        """Distinct pairs of labels that edges across a face join."""
        before, after = self.record(index), self.record(behind)
        edges = (after if self.edge_offset else before).edges(axis)
        a, b = before.labels(axis, -1, edges), after.labels(axis, 0, edges)
        width = len(after.first) + len(after.orphans) + 1
        distinct = np.unique(a * width + b)
        return np.stack([distinct // width, distinct % width])

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
