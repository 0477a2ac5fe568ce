"""Labels of boxes that are united in layers, whatever it is that joins two of them.

Layers of boxes across the longest axis are united each by itself and then two by two
(`seam_tree`), whoever has time, and all tables lie on disk. Memory is thus that of one layer
for each worker, however long the volume is. PyTC unites the labels of all chunks in one
process. Which labels are one is known by those that extend this: by edges across seams
(`seams`), by agreement where boxes overlap (`agreement`), or by name (`growth`).
"""

import abc
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

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

Pairs = Int[np.ndarray, "2 n"]  # of keys that are one
NO_PAIRS = np.empty((2, 0), np.int64)


@dataclasses.dataclass(frozen=True)
class LayeredLabels(abc.ABC):
    """The records of all boxes of a volume, and which of their labels are one.

    The key of a label is the label plus those of the boxes before it in its layer.

    Attributes:
      folder: of the records, and of the tree that is made of them.
      grid: of boxes.
    """

    folder: pathlib.Path
    grid: BoxGrid

    def join(self, mapper: Mapper = one_by_one) -> None:
        """Makes the tree: all leaves know first voxel and size of their components.

        May be interrupted and called again.

        Args:
          mapper: does the work on each of several boxes, layers or nodes of the tree; its
            workers see `folder`.
        """
        layers = range(len(self.layers()))
        list(mapper(self._cross, layers[:-1]))
        list(mapper(self._unite_layer, layers))
        self.tree.merge(mapper)
        self.tree.descend(mapper, ("first", "size"))

    @abc.abstractmethod
    def pairs_across(self, k: int) -> Pairs:
        """Keys of a layer and of the next that are one."""

    @abc.abstractmethod
    def pairs_inside(self, k: int) -> Pairs:
        """Keys of a layer that are one."""

    def record(self, index: int) -> BoxRecord:
        """What a box left for its neighbours."""
        return BoxRecord(self.folder, self.grid, index)

    def layers(self) -> list[list[int]]:
        """Boxes across the axis that has most of them."""
        axis = self.along
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
        """First voxels in the volume and sizes of a box's labels and orphans.

        What has no voxel begins behind the last one of the volume.
        """
        record = self.record(index)
        first = np.concatenate([record.first, record.orphans])
        voxels = np.unravel_index(first, record.box.shape)
        voxels = [v + s for v, s in zip(voxels, record.box.start, strict=True)]
        size = np.concatenate([record.size, np.ones_like(record.orphans)])
        found = np.ravel_multi_index(voxels, self.grid.shape)
        return np.where(size, found, math.prod(self.grid.shape)), size

    @property
    def along(self) -> int:
        """The axis that has most boxes."""
        return int(np.argmax(self.grid.counts))

    def _cross(self, k: int) -> None:
        """Notes which labels of a layer continue in the next."""
        npy.save(self.tree.crossing(k), self.pairs_across(k))

    def _unite_layer(self, k: int) -> None:
        """Makes the leaf of a layer: its components that touch a seam."""
        layers, tree = self.layers(), self.tree
        layer, starts = layers[k], self.starts(layers[k])
        inside = self.pairs_inside(k)
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

    def whole(self, k: int) -> Iterator[tuple[int, "WholeLabels"]]:
        """What the labels of each box of a layer are in the whole volume, once joined."""
        layer = self.layers()[k]
        starts, leaf = self.starts(layer), self.tree.load(0, k)
        for index in layer:
            first, size = self.labels_of(index)
            start = starts[index]
            at = slice(*np.searchsorted(leaf["keys"], (start, start + len(first))))
            component, opened = leaf["component"][at], leaf["keys"][at] - start
            own = first.copy()
            first[opened] = leaf["first"][component]
            size[opened] = leaf["size"][component]
            yield index, WholeLabels(own, first, size, opened, component)


class WholeLabels(NamedTuple):
    """The labels of a box and its orphans, 0 first; voxels are counted in the volume.

    Attributes:
      own_first: first voxel of each in its box.
      first: of the component that each is part of.
      size: likewise, in voxels.
      open: labels that may be part of more.
      component: theirs, in the layer.
    """

    own_first: Keys
    first: Keys
    size: Keys
    open: Keys
    component: Keys


@dataclasses.dataclass(frozen=True)
class FacingLabels(LayeredLabels):
    """Labels of which two can be one only where their boxes share a face."""

    @abc.abstractmethod
    def shared(self, index: int, behind: int, axis: int) -> Pairs:
        """Labels that are one, of a box and of that behind it on an axis."""

    def pairs_across(self, k: int) -> Pairs:
        layers = self.layers()
        starts = self.starts(layers[k]) | self.starts(layers[k + 1])
        return self._pairs(layers[k], [self.along], starts)

    def pairs_inside(self, k: int) -> Pairs:
        layer = self.layers()[k]
        across = [axis for axis in range(3) if axis != self.along]
        return self._pairs(layer, across, self.starts(layer))

    def _pairs(
        self, layer: list[int], axes: list[int], starts: dict[int, int]
    ) -> Pairs:
        found = [NO_PAIRS]
        for index, axis in itertools.product(layer, axes):
            behind = self.grid.neighbour(index, axis, 1)
            if behind is not None:
                labels = self.shared(index, behind, axis)
                found.append(labels + np.array([[starts[index]], [starts[behind]]]))
        return np.hstack(found)
