r"""Components that layers of boxes share, merged two by two: a reduction tree on disk.

A leaf holds the components of one layer that touch a seam, a node those of its children
that go on beyond them, so no table grows with the number of layers, and the merges of one
level run side by side. What the root knows travels down again. PyTC's streamed decoder
keeps one union-find over the labels of all chunks in one process. Three layers, a letter
for each component that touches a seam, and the keys there:

                 layer 0   seam 0   layer 1   seam 1   layer 2
                 a ...... 1 --- 4 .. b ..... 4 --- 2 ...... d
                                     c ..... 7 ---/

    leaves       a (first voxel 0, size 2)   b (10, 3)   c (12, 1)   d (20, 5)

    level 1      ab (0, 5), key 4 high                   d (20, 5), key 2 low
                 c (12, 1), key 7 high
                     \_______________ seam 1 _____________/
    level 2      abcd (0, 11), and no seam goes on

`merge` works down this page: `up` of a and b is 0, their place in level 1, and that of c is
1. `descend` works up again, until all leaves know (0, 11).
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nisbjax.decode.streamed.boxes import save
from nisbjax.store import npy

Keys = Int[np.ndarray, " _"]  # any number of them
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
_FAR = np.iinfo(np.int64).max
_SIDES = ("low", "high")


def one_by_one(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The simplest `Mapper`: in this process, in order."""
    return [work(item) for item in items]


def unite(ends: Keys, others: Keys, count: int) -> tuple[int, Keys]:
    """Components of a graph of `count` vertices: how many, and which each vertex is in."""
    if not count:
        return 0, np.empty(0, np.int64)
    graph = coo_array((np.ones(len(ends), bool), (ends, others)), (count, count))
    number, component = connected_components(graph, directed=False)
    return int(number), component.astype(np.int64)


def gather(component: Keys, count: int, first: Keys, size: Keys) -> dict[str, Keys]:
    """Lowest first voxel and total size of each component."""
    found = {"first": np.full(count, _FAR), "size": np.zeros(count, np.int64)}
    np.minimum.at(found["first"], component, first)
    np.add.at(found["size"], component, size)
    return found


@dataclasses.dataclass(frozen=True)
class SeamTree:
    """Nodes in files of `folder`, by level and position; leaves are level 0.

    A node's arrays: `first` voxel and `size` of its components; `keys_low`, `keys_high`
    (ascending) at its outer seams and the `component_low`, `component_high` that they belong
    to; `up`, the component in the parent, or -1 where it ends here.
    """

    folder: pathlib.Path
    leaves: int

    @property
    def counts(self) -> list[int]:
        """Nodes of each level, from the leaves to the root."""
        counts = [self.leaves]
        while counts[-1] > 1:
            counts.append(-(-counts[-1] // 2))
        return counts

    def crossing(self, layer: int) -> pathlib.Path:
        """Pairs of keys that are joined between a layer and the next, [2 n]."""
        return self.folder / f"crossing{layer}.npy"

    def load(self, level: int, index: int) -> dict[str, np.ndarray]:
        with npy.Archive(self._path(level, index)) as arrays:
            return arrays.all()

    def save(self, level: int, index: int, node: dict[str, np.ndarray]) -> None:
        # Not durable: after a kill all of this is made again from the records.
        save(self._path(level, index), node)

    def merge(self, mapper: Mapper) -> None:
        """Makes all nodes above the leaves."""
        for level, count in enumerate(self.counts[1:], 1):
            _all(mapper, self._merge, [(level, i) for i in range(count)])

    def descend(self, mapper: Mapper, names: tuple[str, ...]) -> None:
        """What is known of a component at the top becomes known below."""
        for level, count in reversed(list(enumerate(self.counts[1:], 1))):
            _all(mapper, self._inform, [(level, i, names) for i in range(count)])

    def ascend_labels(self, mapper: Mapper) -> None:
        """The label that one leaf gave to a component becomes known above."""
        for level, count in enumerate(self.counts[1:], 1):
            _all(mapper, self._collect_labels, [(level, i) for i in range(count)])

    def _path(self, level: int, index: int) -> pathlib.Path:
        return self.folder / f"node{level}.{index}.npz"

    def _children(self, level: int, index: int) -> list[int]:
        return [i for i in (2 * index, 2 * index + 1) if i < self.counts[level - 1]]

    def _merge(self, place: tuple[int, int]) -> None:
        level, index = place
        indices = self._children(level, index)
        children = [self.load(level - 1, i) for i in indices]
        outer = dict(zip(_SIDES, (children[0], children[-1]), strict=True))
        ends = [np.empty(0, np.int64) for _ in children]
        if len(children) == 2:
            # The last layer below the first child.
            pairs = npy.load(self.crossing((indices[1] << (level - 1)) - 1))
            ends = [
                child[f"component_{side}"][np.searchsorted(child[f"keys_{side}"], keys)]
                for child, side, keys in zip(
                    children, ("high", "low"), pairs, strict=True
                )
            ]
        carried = [
            np.unique(
                np.concatenate(
                    [own]
                    + [child[f"component_{s}"] for s in _SIDES if outer[s] is child]
                )
            )
            for child, own in zip(children, ends, strict=True)
        ]
        starts = [0, *itertools.accumulate(len(c) for c in carried)]
        vertices = [
            start + np.searchsorted(own, at)
            for start, own, at in zip(starts, carried, ends, strict=False)
        ]
        count, component = unite(vertices[0], vertices[-1], starts[-1])
        known = {
            name: np.concatenate(
                [c[name][own] for c, own in zip(children, carried, strict=True)]
            )
            for name in ("first", "size")
        }
        node = gather(component, count, known["first"], known["size"])
        for child, i, own, start in zip(
            children, indices, carried, starts, strict=False
        ):
            goes_to = component[start : start + len(own)]
            child["up"] = np.full(len(child["first"]), -1)
            child["up"][own] = goes_to
            for side in _SIDES:
                if outer[side] is child:
                    at = np.searchsorted(own, child[f"component_{side}"])
                    node[f"keys_{side}"] = child[f"keys_{side}"]
                    node[f"component_{side}"] = goes_to[at]
            self.save(level - 1, i, child)
        self.save(level, index, node)

    def _inform(self, order: tuple[int, int, tuple[str, ...]]) -> None:
        level, index, names = order
        node = self.load(level, index)
        for i in self._children(level, index):
            child = self.load(level - 1, i)
            goes_on = child["up"] >= 0
            for name in names:
                child[name][goes_on] = node[name][child["up"][goes_on]]
            self.save(level - 1, i, child)

    def _collect_labels(self, place: tuple[int, int]) -> None:
        level, index = place
        node = self.load(level, index)
        node["label"] = np.zeros(len(node["first"]), np.int64)
        for i in self._children(level, index):
            child = self.load(level - 1, i)
            goes_on = child["up"] >= 0
            np.maximum.at(node["label"], child["up"][goes_on], child["label"][goes_on])
        self.save(level, index, node)


def _all(mapper: Mapper, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    for _ in mapper(work, items):
        pass
