"""One box of the mutex watershed: its fragments, and what they are beside the box.

Mutual exclusion has no seams that could be joined afterwards as edges are, so a box is
decoded with a halo of at least the longest offset: every edge of its own voxels is seen. What
it made of the voxels around its faces is kept, in runs, for two boxes to compare
(`agreement`). `mwatershed` and `affogato` decode whole volumes only.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt

from nisbjax.decode import chain, numbering
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.nonfinite import Nonfinite
from nisbjax.decode.streamed.boxes import BoxDecoder, leave
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.geometry import Box
from nisbjax.typing import Triple

_COMPARED = 4  # voxels on either side of a face; more of them decide the same

Runs = tuple[UInt[np.ndarray, " _"], UInt[np.ndarray, " _"]]


@dataclasses.dataclass(frozen=True)
class MutexDecoder(BoxDecoder):
    """Makes the fragments of a box.

    Attributes:
      offsets: of the channels, in voxels.
      parameters: of the fragments.
      edges: which of them count, in the whole volume.
      halo: voxels beside a box that are decoded with it.
    """

    offsets: tuple[Triple, ...]
    parameters: ChainParameters
    edges: MaskedEdges
    halo: int

    def __call__(self, index: int) -> dict[str, Any]:
        box, region = self.grid.boxes[index], self.grid.around(index, self.halo)
        values = self.affinities.read((slice(None), *region.slices))
        labels = chain.fragments(
            values, self.offsets, self.parameters, self.edges.inside(region)
        )
        inside = box.relative_to(region.start).slices
        nonfinite = Nonfinite.of(values[:, *inside], box.start)
        del values
        core = labels[inside].copy()
        # Fragments without a voxel in the box are no labels of it.
        table = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
        numbering.renumber(core.reshape(-1), table)
        record = {"nonfinite": np.array([nonfinite.count, *nonfinite.first])}
        for axis, side in self.grid.seams(index):
            overlap = overlap_at(self.grid, index, axis, side)
            found = labels[overlap.relative_to(region.start).slices]
            starts, named = runs(table[found])
            record[f"starts{axis}{side}"], record[f"labels{axis}{side}"] = starts, named
        return leave(self, index, core, int(table.max()), record)


def overlap_at(grid: BoxGrid, index: int, axis: int, side: int) -> Box:
    """The voxels on both sides of a face (0 or -1) in which its two boxes are compared.

    On the other axes as far as these boxes themselves.
    """
    start, stop = list(grid.boxes[index].start), list(grid.boxes[index].stop)
    face = stop[axis] if side else start[axis]
    start[axis], stop[axis] = face - _COMPARED, face + _COMPARED
    (x0, y0, z0), (x1, y1, z1) = start, stop
    return Box((x0, y0, z0), (x1, y1, z1)).clip(grid.shape)


def runs(labels: Integer[np.ndarray, "x y z"]) -> Runs:
    """Runs of equal labels in C order: 5 5 5 7 7 0 is 0 3 5 6 and 5 7 0.

    Returns:
      Where they start, the number of voxels behind them; and their labels.
    """
    flat = labels.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], changes, [flat.size]]).astype(np.uint32)
    return starts, flat[starts[:-1]].astype(np.uint32)
