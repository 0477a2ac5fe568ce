"""One box of contested growth, from fragments that are united over the whole volume.

A fragment's name is its first voxel in the volume, so all boxes know it by the same name
and no growth has to be stitched: a box reads the fragments of its neighbours as far as its
halo, grows all of them, and keeps its own voxels. Only what reaches a voxel over a path that
leaves the halo is missed. PyTC and BANIS grow nothing.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int, UInt

from nisbjax.decode import chain, numbering
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.boxes import BoxDecoder, BoxRecord, leave, read_channels
from nisbjax.decode.streamed.layers import NO_PAIRS, LayeredLabels, Pairs
from nisbjax.decode.streamed.seam_tree import Keys
from nisbjax.geometry import Box
from nisbjax.store import npy


def note_components(fragments: LayeredLabels, k: int) -> None:
    """Writes name and size of each fragment of the boxes of a layer, once joined."""
    for index, whole in fragments.whole(k):
        path = _components_path(fragments.folder, index)
        npy.save(path, np.stack([whole.first, whole.size]))


@dataclasses.dataclass(frozen=True)
class GrowthDecoder(BoxDecoder):
    """Grows the fragments in and around a box and keeps what the box has then.

    Attributes:
      fragments: who left the fragments in the boxes; their components are noted.
      parameters: of the growth.
      edges: which of them count, in the whole volume.
      halo: voxels beside a box from which fragments grow into it.
      joins: a table [2 n] of names of fragments and what they became (`links`); None: they
        stay what they are.
    """

    fragments: BoxDecoder
    parameters: ChainParameters
    edges: MaskedEdges
    halo: int
    joins: pathlib.Path | None = None

    def __call__(self, index: int) -> dict[str, Any]:
        box, region = self.grid.boxes[index], self.grid.around(index, self.halo)
        labels, names = self.anchors(region)
        if len(names) > 1:
            labels = chain.grown(
                read_channels(self.affinities, region),
                labels,
                self.parameters,
                self.edges.inside(region),
            )
        core = labels[box.relative_to(region.start).slices].copy()
        table = np.zeros(len(names), np.uint32)
        numbering.renumber(core.reshape(-1), table)
        found = np.flatnonzero(table)
        own = np.full(len(found) + 1, -1)
        own[table[found]] = names[found]
        return leave(self, index, core, len(found), {"names": own})

    def anchors(self, region: Box) -> tuple[UInt[np.ndarray, "x y z"], Keys]:
        """Anchors in a region, 1..N, 0 = none; and the name of each."""
        return read_named(self.fragments, self._names, region)

    def _names(self, index: int) -> Int[np.ndarray, " n"]:
        """Of a box's fragments; -1 for those that are no anchors."""
        components = npy.load(_components_path(self.fragments.folder, index))
        names, size = components
        anchors = size >= self.parameters.anchor
        anchors[0] = False
        names = np.where(anchors, names, -1)
        return names if self.joins is None else _joined(self.joins, names)


def read_named(
    decoder: BoxDecoder, names_of: Callable[[int], Int[np.ndarray, " n"]], region: Box
) -> tuple[UInt[np.ndarray, "x y z"], Keys]:
    """What the boxes that meet a region left there.

    Args:
      decoder: who left it.
      names_of: the names of a box's labels, by their numbers; -1 for those to leave out.
      region: any box of the volume.

    Returns:
      Labels 1..N, 0 = none, ascending as their names; and the name of each.
    """
    parts, names = [], [np.empty(0, np.int64)]
    for index in decoder.grid.meeting(region):
        part = _part(decoder, index, region)
        own = names_of(index)
        present = np.zeros(len(own), bool)
        present[part] = True
        own[~present] = -1
        parts.append((index, part, own))
        names.append(own[own >= 0])
    every = np.unique(np.concatenate([[-1], *names]))
    result = np.empty(region.shape, np.uint32)
    for index, part, own in parts:
        table = np.searchsorted(every, own).astype(np.uint32)
        met = decoder.grid.boxes[index].intersect(region).relative_to(region.start)
        result[met.slices] = table[part]
    return result, every


def _part(decoder: BoxDecoder, index: int, region: Box) -> UInt[np.ndarray, "x y z"]:
    """What a box and a region share of the labels of the box, its orphans among them."""
    box = decoder.grid.boxes[index]
    met = box.intersect(region)
    labels = decoder.provisional.read(met)
    record = BoxRecord(decoder.folder, decoder.grid, index)
    if len(record.orphans):
        labels = labels.copy()
        where = np.stack(np.unravel_index(record.orphans, box.shape), axis=1)
        where += np.array(box.start) - met.start
        inside = ((where >= 0) & (where < met.shape)).all(axis=1)
        x, y, z = where[inside].T
        labels[x, y, z] = len(record.first) + np.flatnonzero(inside)
    return labels


@dataclasses.dataclass(frozen=True)
class NamedLabels(LayeredLabels):
    """The records of all boxes of a volume, as the `GrowthDecoder` left them."""

    def pairs_across(self, k: int) -> Pairs:
        (one, keys), (other, further) = self._named(k), self._named(k + 1)
        one, first = np.unique(one, return_index=True)
        other, second = np.unique(other, return_index=True)
        _, a, b = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        return np.stack([keys[first[a]], further[second[b]]])

    def pairs_inside(self, k: int) -> Pairs:
        names, keys = self._named(k)
        order = np.argsort(names, kind="stable")
        same = np.flatnonzero(names[order[1:]] == names[order[:-1]])
        if not len(same):
            return NO_PAIRS
        return np.stack([keys[order[same]], keys[order[same + 1]]])

    def _named(self, k: int) -> tuple[Keys, Keys]:
        """Names of all labels in a layer, and their keys."""
        layer = self.layers()[k]
        names = [self.record(index).array("names")[1:] for index in layer]
        keys = [
            np.arange(1, len(own) + 1) + start
            for own, start in zip(names, self.starts(layer).values(), strict=True)
        ]
        return np.concatenate(names), np.concatenate(keys)


def _joined(path: pathlib.Path, names: Int[np.ndarray, " n"]) -> np.ndarray:
    """What fragments became, by a table of which few pages are read."""
    known, became = npy.mapped(path)
    if not known.size:
        return names
    at = np.minimum(np.searchsorted(known, names), known.size - 1)
    return np.where(known[at] == names, became[at], names)


def _components_path(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / f"{index}.components.npy"
