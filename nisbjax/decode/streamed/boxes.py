"""One box of a streamed decode: its own labels, and what its neighbours must know of it.

A box is labelled alone. Its faces keep the labels of their voxels and the edges that cross
them, so every affinity is read once and no box waits for another; PyTC's streamed decoder
reads a halo and shifts each chunk's labels by the running maximum of those before.
"""

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped, UInt

from nisbjax.decode import numbering
from nisbjax.decode.connected_components import edge_range, label_box
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.nonfinite import Nonfinite
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.streamed.scratch import checksum_of, checksum_of_file, record_path
from nisbjax.geometry import Box
from nisbjax.store import files, npy
from nisbjax.store.volume import Volume


@dataclasses.dataclass(frozen=True)
class BoxDecoder(abc.ABC):
    """`decoder(index)` labels one box and writes its labels and its record, by `leave`.

    Attributes:
      affinities: [c x y z].
      provisional: [x y z], receives the labels 1..N of each box.
      folder: of the records.
      grid: of boxes.
    """

    affinities: Volume
    provisional: Volume
    folder: pathlib.Path
    grid: BoxGrid

    @abc.abstractmethod
    def __call__(self, index: int) -> dict[str, Any]:
        """Returns what the manifest says of the box."""


@dataclasses.dataclass(frozen=True)
class ComponentsDecoder(BoxDecoder):
    """Labels the components of a box, alone.

    Attributes:
      threshold, threads: as `label_affinities`.
      edges: which of them count, in the whole volume.
    """

    threshold: float
    edges: MaskedEdges
    threads: int | None

    def __call__(self, index: int) -> dict[str, Any]:
        box = self.grid.boxes[index]
        values = read_channels(self.affinities, box)
        nonfinite = Nonfinite.of(values, box.start)
        _, low, high = edge_range(values.dtype, self.threshold)
        faces = crossing(values, self.grid, index, self.edges)
        labels, count = label_box(
            values, self.threshold, self.edges.inside(box), threads=self.threads
        )
        record: dict[str, np.ndarray] = {
            f"edges{a}": (f > low) & (f <= high) for a, f in faces.items()
        }
        for axis, side in self.grid.seams(index):
            record[f"face{axis}{side}"] = labels.take(side, axis)
        record["nonfinite"] = np.array([nonfinite.count, *nonfinite.first])
        return leave(self, index, labels, count, record)


def leave(
    decoder: BoxDecoder,
    index: int,
    labels: UInt[np.ndarray, "x y z"],
    count: int,
    more: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Writes the labels of a box, then its record.

    Args:
      labels: 1, 2 .. in C order of their first voxels, contiguous.
      count: the highest label, or more, for some behind it that have no voxel here.
      more: what the record holds besides.

    Returns:
      What the manifest says of the box.
    """
    decoder.provisional.write(decoder.grid.boxes[index], labels)
    first, size = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    numbering.measure(labels.reshape(-1), first, size)
    checksum = np.array(checksum_of(labels), np.uint32)
    path = record_path(decoder.folder, index)
    arrays = {**more, "first": first, "size": size, "checksum": checksum}
    save(path, arrays, durable=True)
    return {"record": checksum_of_file(path), "count": count}


def crossing(
    values: Shaped[np.ndarray, "3 x y z"],
    grid: BoxGrid,
    index: int,
    edges: MaskedEdges,
) -> dict[int, Shaped[np.ndarray, "a b"]]:
    """Bits of the affinities that are stored in a box for edges to its neighbours.

    Those that the mask takes away are 0; so they become in `values`, for the box alone
    would take an edge into a masked voxel for one that leaves the volume.
    """
    box = grid.boxes[index]
    step, side = (-1, 0) if edges.edge_offset else (1, -1)
    bits, _, _ = edge_range(values.dtype, 0.0)
    faces = {}
    for axis in range(3):
        if grid.neighbour(index, axis, step) is None:
            continue
        stored = _face(box, axis, side)
        own = values[(axis, *stored.relative_to(box.start).slices)]
        x, y, z = (step * (a == axis) for a in range(3))
        ends = (stored, stored.shift((x, y, z))) if edges.both else (stored,)
        for end in ends:
            mask = edges.mask_of(end)
            if mask is not None:
                own[~mask] = 0
        faces[axis] = np.ascontiguousarray(own.squeeze(axis)).view(bits)
    return faces


def _face(box: Box, axis: int, side: int) -> Box:
    """The first (0) or last (-1) plane of a box."""
    start, stop = list(box.start), list(box.stop)
    if side:
        start[axis] = stop[axis] - 1
    else:
        stop[axis] = start[axis] + 1
    (x0, y0, z0), (x1, y1, z1) = start, stop
    return Box((x0, y0, z0), (x1, y1, z1))


def read_channels(affinities: Volume, box: Box) -> Shaped[np.ndarray, "3 x y z"]:
    """Channels 0-2 of a box, as an array that may be changed."""
    values = affinities.read((slice(0, 3), *box.slices))
    return values if values.flags.writeable else values.copy()


def save(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], *, durable: bool = False
) -> None:
    """Writes arrays to a file of the scratch folder, whole or not at all."""
    with files.replacing(path, scratch=True) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        if durable:
            files.sync(temporary)


class BoxRecord:
    """What a decoded box left for its neighbours.

    A voxel whose only edges cross a face is background to its box alone; such `orphans`
    get the labels N + 1.. in the order of their indices in the box.
    """

    def __init__(self, folder: pathlib.Path, grid: BoxGrid, index: int):
        self._path = record_path(folder, index)
        self._orphans = folder / f"{index}.orphans.npy"
        self.box = grid.boxes[index]

    @functools.cached_property
    def _arrays(self) -> npy.Archive:
        return npy.Archive(self._path)

    @property
    def checksum(self) -> int:
        """Of the box's labels."""
        return int(self._arrays["checksum"])

    @property
    def nonfinite(self) -> Nonfinite:
        """What of the box's affinities is NaN or infinite."""
        count, x, y, z = self._arrays["nonfinite"].tolist()
        return Nonfinite(count, (x, y, z))

    def array(self, name: str) -> np.ndarray:
        """One of the arrays that a decoder left besides those of all."""
        return self._arrays[name]

    def edges(self, axis: int) -> Bool[np.ndarray, "a b"]:
        return self._arrays[f"edges{axis}"]

    def face(self, axis: int, side: int) -> Integer[np.ndarray, "a b"]:
        return self._arrays[f"face{axis}{side}"]

    def positions(self, axis: int, side: int, where: Bool[np.ndarray, "a b"]):
        """Indices in the box, flat, of some voxels of a face."""
        a, b = np.nonzero(where)
        index = [a, b]
        index.insert(axis, np.full_like(a, self.box.shape[axis] - 1 if side else 0))
        return np.ravel_multi_index(index, self.box.shape)

    def labels(self, axis: int, side: int, where: Bool[np.ndarray, "a b"]):
        """Labels of some foreground voxels of a face, orphans among them."""
        labels = self.face(axis, side)[where].astype(np.int64)
        alone = labels == 0
        at = self.positions(axis, side, where)[alone]
        labels[alone] = len(self.first) + np.searchsorted(self.orphans, at)
        return labels

    @functools.cached_property
    def first(self) -> Int[np.ndarray, " n"]:
        return self._arrays["first"]

    @functools.cached_property
    def size(self) -> Int[np.ndarray, " n"]:
        return self._arrays["size"]

    @functools.cached_property
    def orphans(self) -> Int[np.ndarray, " m"]:
        return npy.load(self._orphans) if self._orphans.exists() else np.empty(0, int)

    def set_orphans(self, positions: Int[np.ndarray, " m"]) -> None:
        if len(positions):
            npy.save(self._orphans, positions)
        elif self._orphans.exists():
            self._orphans.unlink()
