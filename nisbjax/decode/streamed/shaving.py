"""One box of a shaved segmentation, from segments that have grown over the whole volume.

All boxes know a segment by its name (`growth`), so a box reads as many voxels of its
neighbours as it shaves and takes what one pass over the whole volume would. PyTC has no such
step.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int

from nisbjax.decode import numbering, shave
from nisbjax.decode.streamed.boxes import BoxDecoder, BoxRecord, leave
from nisbjax.decode.streamed.growth import read_named


@dataclasses.dataclass(frozen=True)
class ShavingDecoder(BoxDecoder):
    """Takes from the segments in a box what touches others, inside of it or beside it.

    Attributes:
      growth: who left the segments in the boxes, and their names.
      voxels: as `shave.shaved`.
    """

    growth: BoxDecoder
    voxels: int

    def __call__(self, index: int) -> dict[str, Any]:
        box, region = self.grid.boxes[index], self.grid.around(index, self.voxels)
        labels, names = read_named(self.growth, self._names, region)
        inside = box.relative_to(region.start).slices
        before = np.zeros(len(names), bool)
        before[labels[inside]] = True
        before[0] = False
        core = shave.shaved(labels, self.voxels)[inside].copy()
        table = np.zeros(len(names), np.uint32)
        numbering.renumber(core.reshape(-1), table)
        found, lost = np.flatnonzero(table), np.flatnonzero(before & (table == 0))
        own = np.full(1 + len(found) + len(lost), -1)
        own[table[found]] = names[found]
        # Named still, without a voxel: the segment may go on in the boxes on both sides.
        own[1 + len(found) :] = names[lost]
        return leave(self, index, core, len(own) - 1, {"names": own})

    def _names(self, index: int) -> Int[np.ndarray, " n"]:
        return BoxRecord(self.growth.folder, self.grid, index).array("names").copy()
