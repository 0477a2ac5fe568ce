"""Chunk files are compared with their artifact's manifest before a stage believes a voxel.

Each is compared once by whoever opened the array, when it is first read: its bytes come from the page cache
then, and one CRC-32 is far cheaper than inflating them. zarr and TensorStore take a missing
chunk for one that equals the fill value, so a lost file becomes background; PyTC reads on.
"""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import comparison, finished, manifest_lines, stored
from nisbjax.store.places import Place
from nisbjax.store.stored import ChunkFiles, Fact

UNNAMED, WRITTEN, ABSENT, COMPARED = range(4)


def guard(
    folder: str | os.PathLike, store: ts.TensorStore, attributes: Mapping[str, Any]
) -> "Guard | None":
    """What compares an array's chunks; None without a manifest that names them.

    Args:
      folder: of the array.
      store: the array.
      attributes: of the array.

    Raises:
      InputError: its manifest says that it is unfinished, or its metadata are others than
        when it was finished; or it is ours and has no manifest.
    """
    located = finished.locate(folder)
    files = ChunkFiles.of(store) if located else None
    if located is None:
        finished.require_known(folder, attributes)
    if located is None:
        return None
    artifact, prefix = located
    stat = os.stat(manifest_lines.path_inside(artifact))
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if files is None:
        _require_sizes(str(artifact.absolute()), state)
        return None
    table, metadata = _table(str(artifact.absolute()), prefix, files, state)
    for problem in comparison.metadata_problems(artifact, metadata).values():
        raise InputError(finished.damage_line(artifact, problem))
    return None if table is None else Guard(pathlib.Path(folder), files, table)


class Guard:
    """Compares the chunk files of one array, each at its first reading; see `guard`.

    Safe to use from several threads. In another process it begins again.
    """

    def __init__(self, folder: pathlib.Path, files: ChunkFiles, table: "Table"):
        self._folder: Place = folder
        self._files = files
        self._table = table
        self._state = table.state.copy()

    def __reduce__(self):
        return _reopened, (os.path.abspath(self._folder), self._files)

    def before(self, part: ts.TensorStore) -> None:
        """Nothing is compared before a part is read: its bytes are in memory then."""

    def check(self, part: ts.TensorStore) -> None:
        """Compares the chunk files that a part of the array takes voxels from.

        Raises:
          InputError: one of them is missing or damaged.
        """
        for index in self._uncompared(part):
            name = self._files.name(index)
            self._compare(index, name, stored.of_file(self._files.folder / name))

    def _uncompared(self, part: ts.TensorStore) -> list[tuple[int, ...]]:
        """The chunks of a part that the manifest names, and nobody compared yet."""
        axes = self._files.touched(part)
        states = self._state[np.ix_(*axes)]
        return [
            tuple(int(a[i]) for a, i in zip(axes, at, strict=True))
            for at in np.argwhere((states == WRITTEN) | (states == ABSENT))
        ]

    def check_file(self, name: str, content: bytes) -> None:
        """Compares a chunk file that was read whole, by its name in the array's folder.

        Raises:
          InputError: it is damaged.
        """
        number = self._files.index(name)
        if number < 0:
            return
        index = tuple(int(i) for i in np.unravel_index(number, self._files.grid))
        if self._state[index] in (WRITTEN, ABSENT):
            self._compare(index, name, stored.of_bytes(content))

    def _compare(self, index: tuple[int, ...], name: str, found: Fact) -> None:
        problem = comparison.problem_of(name, self._table.fact(index), found)
        if problem is not None:
            raise InputError(finished.damage_line(self._folder, problem))
        self._state[index] = COMPARED


class Table:
    """Facts on an array's chunks, by their place in its grid: 13 bytes for each."""

    def __init__(self, files: ChunkFiles, known: dict[str, Fact]):
        self.state = np.zeros(files.grid, np.uint8)
        self._size = np.zeros(files.grid, np.int64)
        self._crc = np.zeros(files.grid, np.uint32)
        for name, fact in known.items():
            number = files.index(name)
            if number < 0:
                continue
            self.state.flat[number] = ABSENT if fact is None else WRITTEN
            if fact is not None:
                self._size.flat[number], self._crc.flat[number] = fact

    def fact(self, index: tuple[int, ...]) -> Fact:
        if self.state[index] == ABSENT:
            return None
        return int(self._size[index]), int(self._crc[index])


@functools.lru_cache(maxsize=16)
def _table(
    artifact: str, prefix: str, files: ChunkFiles, state: tuple[int, ...]
) -> tuple[Table | None, Mapping[str, comparison.Words | Fact]]:
    """`state` tells a manifest from one that was there before under the same name."""
    del state
    found = finished.finished_files(artifact)
    if found is None:
        return None, {}
    known, metadata = found
    own = {n.removeprefix(prefix): f for n, f in known.items() if n.startswith(prefix)}
    return (Table(files, own) if own else None), metadata


@functools.lru_cache(maxsize=16)
def _require_sizes(artifact: str, state: tuple[int, ...]) -> None:
    """Of formats whose chunks are not compared as they are read: all are there, once."""
    del state
    finished.require_finished(artifact)


def _reopened(folder: str, files: ChunkFiles) -> Guard:
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{files.folder}/"}}
    try:
        found = guard(folder, ts.open(spec, read=True).result(), {})
    except (OSError, ValueError):
        found = None
    if found is None:
        raise InputError(f"{folder} was removed or replaced while it was read")
    return found
