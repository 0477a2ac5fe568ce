"""Which fragments of the chain are one, by what lies between them all over the volume.

Fragments spread over the background around a box until they touch, and the box counts its
links (`agglomeration.region_graph`) by the names that all boxes know them by. What they join
is a table on disk, by which each box then looks up its own; growth begins anew from there,
so that what lay contested between two that became one is filled. PyTC's waterz holds fragments
and graph of the whole volume.
"""

import dataclasses
import pathlib

import numpy as np

from nisbjax.decode.agglomeration.box_links import LinkReader
from nisbjax.decode.agglomeration.composition import JoinParameters, joined_labels
from nisbjax.decode.agglomeration.counting import HIGH, LOW
from nisbjax.decode.agglomeration.region_graph import complete
from nisbjax.decode.agglomeration.tables import Rows
from nisbjax.decode.agglomeration.territories import territories
from nisbjax.decode.streamed.boxes import read_channels
from nisbjax.decode.streamed.growth import GrowthDecoder
from nisbjax.parallel import cluster
from nisbjax.store import files, npy
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume

_LOW = 0.3  # affinity down to which fragments spread to see where they touch


@dataclasses.dataclass(frozen=True)
class AnchorLinks:
    """`links(index)` is the table of links between fragments in one box, by their names.

    Attributes:
      growth: that knows the fragments, not joined.
      affinities: [c x y z], all channels.
      reader: of their links.
      parameters: of the joins.
    """

    growth: GrowthDecoder
    affinities: Volume
    reader: LinkReader
    parameters: JoinParameters

    def __call__(self, index: int) -> Rows:
        growth = self.growth
        box = growth.grid.boxes[index]
        reach = max(growth.halo, int(np.abs(self.reader.offsets).max()))
        region = growth.grid.around(index, reach)
        labels, names = growth.anchors(region)
        labels = territories(
            read_channels(growth.affinities, region),
            labels,
            _LOW,
            edges=growth.edges.inside(region),
        )
        around = self.reader.around(box, growth.grid.shape)
        labels = labels[around.relative_to(region.start).slices]
        rows = self.reader.count(box, self.affinities.read(box), around, labels)
        for column in (LOW, HIGH):
            rows[:, column] = names[rows[:, column]]  # ascending, as their numbers
        return rows

    def join(self, memory_gb: float, team: cluster.Workers) -> pathlib.Path:
        """Joins fragments.

        May be interrupted and called again.

        Args:
          memory_gb: that merging tables and agglomeration may take.
          team: counts the links.

        Returns:
          Path of a table [2 n], names and what they become, for `GrowthDecoder`.

        Raises:
          InputError: as `load_pairs`.
        """
        folder = self.growth.folder / "links"
        made_from = {"region_graph": [list(o) for o in self.reader.offsets]}
        boxes = self.growth.grid.boxes
        with Manifest(folder, made_from) as manifest:
            graph = complete(
                manifest, self, boxes, self.reader.bins, memory_gb=memory_gb, team=team
            )
        path = folder / "joined.npy"
        found = joined_labels(graph, self.parameters, memory_gb=memory_gb)
        with files.replacing(path, scratch=True) as temporary:
            npy.save(temporary, np.stack(found))
        return path
