"""Chunks at an address are compared with the manifest that lies with them.

What nisbjax wrote there, or somebody copied, brings its manifest: a chunk that is missing would
read as the fill value. A manifest is read once for a process, and each chunk's last byte is
asked for with its first reading, which tells its size and not its checksum: those of all
bytes would double what is fetched. PyTC reads no addresses.
"""

import functools
import re
import zlib
from collections.abc import Mapping
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import access, comparison, finished, manifest_lines, places
from nisbjax.store.places import Address
from nisbjax.store.request_errors import unreachable
from nisbjax.store.stored import ChunkFiles, Fact
from nisbjax.store.verified import Guard, Table

_OTHER_LENGTH = re.compile("OUT_OF_RANGE")
_WITHOUT_RANGES = re.compile("was ignored by server")


def guard(
    place: Address, store: ts.TensorStore, attributes: Mapping[str, Any]
) -> "SentGuard | None":
    """What compares an array's chunks; None without a manifest.

    Args:
      place: of the array, or of the precomputed volume.
      store: the array.
      attributes: of the array.

    Raises:
      InputError: its manifest says that it is unfinished, or its metadata are others than
        when it was finished; or it is ours and has no manifest.
    """
    for above in (place, place.parent):
        manifest_lines.path_inside(above).start_read()
    artifact = finished.artifact_of(place)
    if artifact is None:
        finished.require_known(place, attributes)
        return None
    files = ChunkFiles.at(store, place)
    if files is None:
        return None
    table, metadata = _table(artifact, files, _state(artifact))
    for problem in comparison.metadata_problems(artifact, metadata).values():
        raise InputError(finished.damage_line(artifact, problem))
    return SentGuard(place, files, table)


class SentGuard(Guard):
    """Compares the chunks of one array, each at its first reading; see `guard`.

    Safe to use from several threads. In another process it begins again.
    """

    def __init__(self, place: Address, files: ChunkFiles, table: Table):
        self._folder = place
        self._files = files
        self._table = table
        self._state = table.state.copy()
        self._asked: dict[tuple[int, ...], ts.Future] = {}
        spec = places.kvstore_of(files.folder)
        self._chunks = ts.KvStore.open(spec, context=access.context()).result()

    def __reduce__(self):
        return _reopened, (self._folder, self._files, access.WAY.access)

    def before(self, part: ts.TensorStore) -> None:
        """Asks for what `check` compares, while the part itself is on its way."""
        for index in self._uncompared(part):
            if index not in self._asked:
                fact = self._table.fact(index)
                last = fact[0] - 1 if fact else 0
                self._asked[index] = self._chunks.read(
                    self._files.name(index), byte_range=slice(last, None)
                )

    def check(self, part: ts.TensorStore) -> None:
        """Waits for it.

        Raises:
          InputError: a chunk is missing, of another length, or cannot be reached.
        """
        self.before(part)
        for index in self._uncompared(part):
            asked = self._asked.get(index)
            if asked is not None:  # else another thread was faster
                self._compare(index, self._files.name(index), self._found(index, asked))
                self._asked.pop(index, None)

    def _found(self, index: tuple[int, ...], asked: ts.Future) -> Fact:
        """What a manifest would say of the chunk that is there, as far as it is looked at."""
        wanted = self._table.fact(index)
        size, checksum = wanted or (1, 0)
        try:
            answer = asked.result()
        except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
            if _WITHOUT_RANGES.search(str(error)):
                return size, checksum  # it is there
            if _OTHER_LENGTH.search(str(error)):
                return 0, checksum
            raise unreachable(str(self._folder), error) from None
        if answer.state != "value":
            return None
        return size - 1 + len(answer.value), checksum


def _state(artifact: Address) -> int:
    """What tells a manifest from one that was there before under the same name."""
    return zlib.crc32(manifest_lines.path_inside(artifact).read() or b"")


@functools.lru_cache(maxsize=16)
def _table(
    artifact: Address, files: ChunkFiles, state: int
) -> tuple[Table, Mapping[str, comparison.Words | Fact]]:
    del state
    found = finished.finished_files(artifact)
    known, metadata = ({}, {}) if found is None else found
    prefix = f"{files.folder.relative_to(artifact)}/".removeprefix("./")
    own = {n.removeprefix(prefix): f for n, f in known.items() if n.startswith(prefix)}
    return Table(files, own), metadata


def _reopened(place: Address, files: ChunkFiles, asked: access.Access) -> SentGuard:
    if asked != access.WAY.access:  # a worker knows no keys of the configuration
        access.settle(asked)
    artifact = finished.artifact_of(place)
    if artifact is None:
        raise InputError(f"{place} was removed or replaced while it was read")
    return SentGuard(place, files, _table(artifact, files, _state(artifact))[0])
