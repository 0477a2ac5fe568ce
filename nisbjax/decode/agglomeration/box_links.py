"""The links of one box: which labels its affinities reach, and which of them count.

An affinity belongs to the box that stores it, wherever the other voxel lies: affinities are
read once, and only labels are read beyond a box. waterz and `elf` see a volume as a whole.
"""

import dataclasses

import numpy as np

from nisbjax.decode.agglomeration import tables
from nisbjax.decode.agglomeration.counting import Around, Links, count_links
from nisbjax.decode.agglomeration.evidence import codes
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.geometry import Box
from nisbjax.store.volume import Volume
from nisbjax.typing import Affinities, Triple


@dataclasses.dataclass(frozen=True)
class LinkReader:
    """Counts the links of a box whose labels and affinities are in memory.

    Attributes:
      offsets: of the channels.
      bins: of the affinities of common faces, 1 or 256.
      edges: which of them count, in the whole volume.
    """

    offsets: tuple[Triple, ...]
    bins: int
    edges: MaskedEdges

    def around(self, box: Box, shape: Triple) -> Box:
        """A box with all voxels that its affinities reach inside of a volume."""
        reach = self._reach
        x0, y0, z0 = (-np.minimum(reach.min(0), 0)).tolist()
        x1, y1, z1 = np.maximum(reach.max(0), 0).tolist()
        return box.grow((x0, y0, z0), (x1, y1, z1)).clip(shape)

    def count(
        self, box: Box, affinities: Affinities, around: Box, labels: Around
    ) -> tables.Rows:
        """The sorted table of a box.

        Args:
          box: of the affinities.
          around: of the labels.
        """
        core = box.relative_to(around.start).slices
        near = labels[core]
        mask = self.edges.mask_of(around if self.edges.both else box)
        if mask is not None and self.edges.both:
            labels = np.where(mask, labels, 0).astype(labels.dtype)
            near = labels[core]
        elif mask is not None:
            near = np.where(mask, near, 0).astype(labels.dtype)
        # 0 for the channels of common faces, `bins` and more for the others.
        long = np.abs(self._reach).sum(1) > 1
        kinds = np.where(long, self.bins + np.cumsum(long) - 1, 0)
        values, table = codes(affinities)
        links = Links(values, table, self._reach, kinds, self.bins)
        return count_links(near, labels, core, links)

    @property
    def _reach(self) -> np.ndarray:
        """From the voxel that stores an affinity to the other one, by channel."""
        return np.array(self.offsets) * (-1 if self.edges.edge_offset else 1)


@dataclasses.dataclass(frozen=True)
class LabelCounter:
    """`counter(index)` is the table of one box of a file of labels.

    Attributes:
      labels, affinities: of the volume.
      boxes: of the volume.
      reader: of their links.
    """

    labels: Volume
    affinities: Volume
    boxes: tuple[Box, ...]
    reader: LinkReader

    def __call__(self, index: int) -> tables.Rows:
        box = self.boxes[index]
        around = self.reader.around(box, self.labels.spatial_shape)
        return self.reader.count(
            box, self.affinities.read(box), around, self.labels.read(around)
        )
