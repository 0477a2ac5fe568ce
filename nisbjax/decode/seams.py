"""Joins the labels of boxes across their seams and numbers the components of the whole.

Layers of boxes across the longest axis are united one after another, as PyTC's streamed
decoder unites the labels of touching chunks; but only the components that go on into the
next layer are carried there, first voxels and sizes travel up and come back down, and all
tables lie on disk. Memory is thus that of one layer, however long the volume is.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nisbjax.decode.boxes import Grid, Record, save
from nisbjax.decode.statistics import Statistics

Keys = Int[np.ndarray, " _"]  # any number of them
_FAR = np.iinfo(np.int64).max
_ROWS = 1 << 17  # of which counts are in memory at once


@dataclasses.dataclass(frozen=True)
class Seams:
    """The records of all boxes of a volume, as the `BoxDecoder` left them.

    Attributes:
      folder: of the records and of the tables made here.
      grid: of boxes.
      edge_offset: as `label_affinities`; says which box holds the edges of a seam.
    """

    folder: pathlib.Path
    grid: Grid
    edge_offset: int

    def record(self, index: int) -> Record:
        return Record(self.folder, self.grid, index)

    def layers(self) -> list[list[int]]:
        """Boxes across the axis that has most of them."""
        axis = int(np.argmax(self.grid.counts))
        order = np.arange(len(self.grid.boxes)).reshape(self.grid.counts)
        return [part.ravel().tolist() for part in np.moveaxis(order, axis, 0)]

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

    def _pairs(self, index: int, axis: int, starts: dict[int, int]):
        """Which labels a box shares with the box behind it on an axis.

        Args:
          starts: of each box, what is added to its labels to make keys.

        Returns:
          Distinct pairs of keys, of this box and of that behind.
        """
        behind = self.grid.neighbour(index, axis, 1)
        if behind is None:
            return np.empty((2, 0), np.int64)
        before, after = self.record(index), self.record(behind)
        edges = (after if self.edge_offset else before).edges(axis)
        a, b = before.labels(axis, -1, edges), after.labels(axis, 0, edges)
        width = len(after.first) + len(after.orphans) + 1
        distinct = np.unique(a * width + b)
        found = np.stack([distinct // width, distinct % width])
        return found + np.array([[starts[index]], [starts[behind]]])

    def table(self, index: int) -> pathlib.Path:
        """Final label of each label of a box, then of its orphans."""
        return self.folder / f"{index}.table.npy"

    def number(self, min_size: int) -> Statistics:
        """Writes the tables: labels 1..N by first voxels, 0 for what is below `min_size`.

        May be interrupted and called again.
        """
        layers, starts = self._join()
        statistics = Statistics(int(np.prod(self.grid.shape)))
        for k, layer in enumerate(layers):
            for index in layer:
                box = self._members(k, index, starts[k])
                kept = box.kept(min_size)
                statistics.add(box.size[kept])
                rows = np.bincount(box.row[kept], minlength=box.rows)
                np.save(self._rows(index), rows.reshape(box.shape[:2]))
        self._accumulate_rows()
        for k, layer in enumerate(layers):
            self._label_first_voxels(k, layer, starts[k], min_size)
        self._descend(len(layers), ("label",))
        for k, layer in enumerate(layers):
            labels = self._layer(k)["label"]
            for index in layer:
                box = self._members(k, index, starts[k])
                table = np.load(self.table(index))
                table[box.open] = labels[box.component]
                np.save(self.table(index), table)
        return statistics

    def segments(self) -> Iterator[tuple[int, Keys]]:
        """Boxes, and the first voxel in the volume of each label's segment in them.

        Entry 0 means nothing; orphans follow the labels.
        """
        layers, starts = self._join()
        for k, layer in enumerate(layers):
            first = self._layer(k)["first"]
            for index in layer:
                box = self._members(k, index, starts[k])
                box.first[box.open] = first[box.component]
                yield index, box.first

    def _join(self) -> tuple[list[list[int]], list[dict[int, int]]]:
        """Unites all layers, and tells each what the later ones found."""
        for index in range(len(self.grid.boxes)):
            self._find_orphans(index)
        layers = self.layers()
        starts = [self._starts(layer) for layer in layers]
        self._unite(layers, starts)
        self._descend(len(layers), ("first", "size"))
        return layers, starts

    def _starts(self, layer: list[int]) -> dict[int, int]:
        records = [self.record(index) for index in layer]
        lengths = [len(r.first) + len(r.orphans) for r in records]
        ends = itertools.accumulate(lengths, initial=0)
        return dict(zip(layer, ends, strict=False))

    def _unite(self, layers, starts) -> None:
        """One layer after another: components, and where they go on in the next."""
        along = int(np.argmax(self.grid.counts))
        across = [axis for axis in range(3) if axis != along]
        last = {"first": np.empty(0, np.int64), "size": np.empty(0, np.int64)}
        last |= {"keys": np.empty(0, np.int64), "component": np.empty(0, np.int64)}
        into = np.empty((2, 0), np.int64)
        for k, layer in enumerate(layers):
            offsets = {**starts[k], **({} if k + 1 == len(layers) else starts[k + 1])}
            nothing = [np.empty((2, 0), np.int64)]
            inside = [self._pairs(i, a, offsets) for i in layer for a in across]
            onward = [self._pairs(i, along, offsets) for i in layer]
            inside, onward = np.hstack(nothing + inside), np.hstack(nothing + onward)
            keys = np.unique(np.concatenate([inside.ravel(), onward[0], into[1]]))
            below = last["component"][np.searchsorted(last["keys"], into[0])]
            carried = np.unique(below)
            ends = np.searchsorted(keys, np.concatenate([inside[0], into[1]]))
            others = np.concatenate(
                [
                    np.searchsorted(keys, inside[1]),
                    len(keys) + np.searchsorted(carried, below),
                ]
            )
            nodes = len(keys) + len(carried)
            graph = coo_array((np.ones(len(ends), bool), (ends, others)), (nodes,) * 2)
            count, component = connected_components(graph, directed=False)
            first, size = self._open(layer, starts[k], keys)
            first = np.concatenate([first, last["first"][carried]])
            size = np.concatenate([size, last["size"][carried]])
            now = {"keys": keys, "component": component[: len(keys)]}
            now["first"] = np.full(count, _FAR)
            np.minimum.at(now["first"], component, first)
            now["size"] = np.zeros(count, np.int64)
            np.add.at(now["size"], component, size)
            now["up"] = np.full(count, -1)
            if k:
                last["up"][carried] = component[len(keys) :]
                self._save_layer(k - 1, last)
            last, into = now, onward
        self._save_layer(len(layers) - 1, last)

    def _open(self, layer, starts, keys) -> tuple[Keys, Keys]:
        """First voxels and sizes of the labels at seams."""
        parts = [(np.empty(0, np.int64),) * 2]
        for index in layer:
            first, size = self._own(index)
            start = starts[index]
            at = slice(*np.searchsorted(keys, (start, start + len(first))))
            parts.append((first[keys[at] - start], size[keys[at] - start]))
        first, size = zip(*parts, strict=True)
        return np.concatenate(first), np.concatenate(size)

    def _own(self, index: int) -> tuple[Keys, Keys]:
        """First voxels in the volume and sizes of a box's labels and orphans."""
        record = self.record(index)
        first = np.concatenate([record.first, record.orphans])
        voxels = np.unravel_index(first, record.box.shape)
        voxels = [v + s for v, s in zip(voxels, record.box.start, strict=True)]
        size = np.concatenate([record.size, np.ones_like(record.orphans)])
        return np.ravel_multi_index(voxels, self.grid.shape), size

    def _descend(self, layers: int, names: Sequence[str]) -> None:
        """What is known of a component in its last layer becomes known in all."""
        above = self._layer(layers - 1)
        for k in reversed(range(layers - 1)):
            layer = self._layer(k)
            goes_on = layer["up"] >= 0
            for name in names:
                layer[name][goes_on] = above[name][layer["up"][goes_on]]
            self._save_layer(k, layer)
            above = layer

    def _members(self, k: int, index: int, starts: dict[int, int]) -> "_Members":
        layer = self._layer(k)
        first, size = self._own(index)
        start = starts[index]
        at = slice(*np.searchsorted(layer["keys"], (start, start + len(first))))
        component = layer["component"][at]
        opened = layer["keys"][at] - start
        own = np.ones(len(first), bool)
        own[0] = False  # background
        own[opened] = first[opened] == layer["first"][component]
        size[opened] = layer["size"][component]
        box = self.grid.boxes[index]
        x, y, _ = np.unravel_index(first, self.grid.shape)
        row = (x - box.start[0]) * box.shape[1] + y - box.start[1]
        return _Members(box.shape, first, size, own, row, opened, component)

    def _accumulate_rows(self) -> None:
        """Turns counts of first voxels by row into the last label before each row."""
        label = 0
        ny = self.grid.shape[1]
        by_slab = np.arange(len(self.grid.boxes)).reshape(self.grid.counts[0], -1)
        for slab in by_slab.tolist():
            planes = self.grid.boxes[slab[0]].shape[0]
            step = max(1, _ROWS // (ny * self.grid.counts[2]))
            for x in range(0, planes, step):
                part = slice(x, min(x + step, planes))
                counts = np.zeros((part.stop - x, ny, self.grid.counts[2]), np.int64)
                places = []
                for index in slab:
                    y = self.grid.boxes[index].slices[1]
                    places.append((slice(None), y, self.grid.position(index)[2]))
                    rows = np.load(self._rows(index), mmap_mode="r")
                    counts[places[-1]] = rows[part]
                after = np.cumsum(counts).reshape(counts.shape) + label
                label = int(after[-1, -1, -1])
                for index, place in zip(slab, places, strict=True):
                    rows = np.load(self._rows(index), mmap_mode="r+")
                    rows[part] = (after - counts)[place]
                    rows.flush()

    def _label_first_voxels(self, k, layer, starts, min_size) -> None:
        """Labels what begins in this layer, and takes up what comes from the one before."""
        state = self._layer(k)
        state["label"] = np.zeros(len(state["first"]), np.int64)
        if k:
            before = self._layer(k - 1)
            goes_on = before["up"] >= 0
            np.maximum.at(
                state["label"], before["up"][goes_on], before["label"][goes_on]
            )
        for index in layer:
            box = self._members(k, index, starts)
            kept = np.flatnonzero(box.kept(min_size))
            kept = kept[np.argsort(box.first[kept])]
            row = box.row[kept]
            in_row = np.arange(len(row)) - np.searchsorted(row, row)
            table = np.zeros(len(box.first), np.int64)
            table[kept] = np.load(self._rows(index)).ravel()[row] + in_row + 1
            np.save(self.table(index), table)
            np.maximum.at(state["label"], box.component, table[box.open])
        self._save_layer(k, state)

    def _rows(self, index: int) -> pathlib.Path:
        return self.folder / f"{index}.rows.npy"

    def _layer(self, k: int) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"layer{k}.npz") as arrays:
            return dict(arrays)

    def _save_layer(self, k: int, arrays: dict[str, np.ndarray]) -> None:
        # Not durable: after a kill all of this is made again from the records.
        save(self.folder / f"layer{k}.npz", arrays, durable=False)


@dataclasses.dataclass(frozen=True)
class _Members:
    """The labels of a box and its orphans, 0 first: what they are in the whole volume."""

    shape: tuple[int, int, int]
    first: Keys  # own first voxel
    size: Keys  # of the whole component
    own: np.ndarray  # whether the component begins with this label
    row: Keys  # of the box, in which the label begins
    open: Keys  # labels at seams
    component: Keys  # theirs, in the layer

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[1]

    def kept(self, min_size: int) -> np.ndarray:
        return self.own & (self.size >= min_size)
