"""Skeletons of a volume as flat arrays: nodes of all of them, then edges.

BANIS and PyTC walk a `networkx.Graph` node by node at each evaluation; whatever file the
skeletons come from, here they are arrays, which numpy counts at once.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from nisbjax.geometry import Box
from nisbjax.typing import FloatTriple

_ROUNDING = 1e-3  # voxels; float32 is finer for volumes of less than 8,000 of them
FIELDS = ("node_id", "index_position", "position_nm", "edges")


@dataclass(frozen=True, eq=False)
class Skeletons:
    """All skeletons of one volume.

    Attributes:
      node_id: ground-truth segment of each node, the value that `seg` holds there.
      index_position: voxel index of each node, x y z.
      position_nm: position of each node [nm], x y z.
      edges: rows of the two nodes of each edge.
      source: where the skeletons came from, for messages.
      placed: whether the voxel indices follow from the positions by a voxel size that was
        given, as in SWC, and are not the file's own.
    """

    node_id: Int64[np.ndarray, " n"]
    index_position: Int64[np.ndarray, "n 3"]
    position_nm: Float64[np.ndarray, "n 3"]
    edges: Int64[np.ndarray, "e 2"]
    source: str = "memory"
    placed: bool = False

    @property
    def edge_lengths_nm(self) -> Float64[np.ndarray, " e"]:
        """Euclidean length of each edge [nm]; the file itself stores none."""
        ends = self.position_nm[self.edges]
        return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)

    def voxel_size_nm(self) -> Float64[np.ndarray, " 3"]:
        """Slope of `position_nm` over `index_position` per axis; nan on a flat axis."""
        index = self.index_position - self.index_position.mean(axis=0)
        position = self.position_nm - self.position_nm.mean(axis=0)
        spread = (index * index).sum(axis=0)
        slope = (index * position).sum(axis=0) / np.where(spread > 0, spread, 1)
        return np.where(spread > 0, slope, np.nan)

    def within(self, box: Box) -> "Skeletons":
        """The part in a box: nodes there, edges with both ends there.

        Voxel indices count from the box; positions in nm stay.
        """
        start, stop = np.asarray(box.start), np.asarray(box.stop)
        kept = np.all(
            (self.index_position >= start) & (self.index_position < stop), axis=1
        )
        row = np.cumsum(kept) - 1
        edges = self.edges[kept[self.edges].all(axis=1)]
        return Skeletons(
            self.node_id[kept],
            self.index_position[kept] - start,
            self.position_nm[kept],
            row[edges],
            self.source,
            self.placed,
        )

    def resolution_note(self, voxel_size_nm: FloatTriple) -> str:
        """A sentence if the configured voxel size [nm] disagrees by over 1 %, else ""."""
        if self.placed:
            return ""
        wanted = np.asarray(tuple(voxel_size_nm), float)
        found = self.voxel_size_nm()
        known = np.isfinite(found)
        if np.all(np.abs(found - wanted)[known] <= 0.01 * wanted[known]):
            return ""
        return (
            f"{self.source}: its nm positions mean voxels of {_in_words(found)} nm, but "
            f"data.voxel_size_nm is {_in_words(wanted)}; lengths are taken from the file"
        )


def _in_words(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def voxels_of(
    position_nm: Float64[np.ndarray, "n 3"], voxel_size_nm: FloatTriple
) -> Int64[np.ndarray, "n 3"]:
    """The voxel that each position lies in: voxel i from i to i + 1 times its size.

    Programs say where a voxel is by its low corner (kimimaro, NISB) or by its centre
    (neuroglancer); both are voxel i here, and a corner stays there as float32 rounds it.
    """
    size = np.asarray(tuple(voxel_size_nm), float)
    return np.floor(position_nm / size + _ROUNDING).astype(np.int64)
