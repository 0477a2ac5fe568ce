"""The last step of a streamed decode: provisional labels become final ones, box by box.

They are compared with the checksum in the record of their box before a kernel looks up one
of them in a table, and decoded again where they are others. PyTC relabels its chunks in
place, so that a kill leaves two kinds of labels in one file.
"""

import dataclasses
import os
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import UInt

from nisbjax.decode import numbering
from nisbjax.decode.streamed.boxes import BoxDecoder, BoxRecord
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.streamed.scratch import checksum_of, table_path
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.parallel import cluster
from nisbjax.store import npy, stored
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume


def relabel_boxes(
    decoder: BoxDecoder, output: Volume, manifest: Manifest, team: cluster.Workers
) -> None:
    """Writes the final labels of the boxes of which no attempt has written them."""
    boxes = decoder.grid.boxes
    names = [f"relabel {box}" for box in boxes]
    sound = {i for i, name in enumerate(names) if manifest.done(name)}
    whole_chunks = decoder.grid.holds_whole(output)  # then their files were compared
    if not whole_chunks:
        done = sorted(sound)
        wanted = [manifest.facts(names[i]).get("labels") for i in done]
        checked = team.map(LabelCheck(output, decoder.grid), done)
        damaged = [i for i, a, b in zip(done, wanted, checked, strict=True) if a != b]
        warn_of_damage("labels", [boxes[i] for i in damaged])
        if damaged:  # a chunk that cannot be read cannot be written in part either
            remove_chunks(output)
            sound = set()
    missing = [i for i in range(len(boxes)) if i not in sound]
    relabeler = Relabeler(decoder, output)
    for i, facts in zip(missing, team.map(relabeler, missing, "relabel"), strict=True):
        manifest.record(names[i], **facts)
    if not whole_chunks:
        manifest.record("chunks of several boxes", all_files(output))


@dataclasses.dataclass(frozen=True)
class Relabeler:
    """`relabeler(index)` writes the final labels of one box.

    Attributes:
      decoder: that left the provisional labels, and makes them again.
      output: [x y z].
    """

    decoder: BoxDecoder
    output: Volume

    def __call__(self, index: int) -> dict[str, Any]:
        box = self.decoder.grid.boxes[index]
        record = BoxRecord(self.decoder.folder, self.decoder.grid, index)
        table = npy.load(table_path(self.decoder.folder, index))
        table = table.astype(self.output.dtype)
        labels = self._labels(record, index)
        result = np.empty(box.shape, self.output.dtype)
        own = table[: len(record.first)]
        if not numbering.relabel(labels.reshape(-1), own, result.reshape(-1)):
            raise InputError(
                f"box {box} has labels beyond the {len(own) - 1} of its record; remove "
                f"{self.output.source} and decode again"
            )
        result.reshape(-1)[record.orphans] = table[len(record.first) :]
        self.output.write(box, result)
        return {
            "files": self.output.chunk_facts(box, self.output.source),
            "labels": checksum_of(result),
        }

    def _labels(self, record: BoxRecord, index: int) -> UInt[np.ndarray, "x y z"]:
        labels = self._read(index)
        if labels is not None and checksum_of(labels) == record.checksum:
            return labels
        box = self.decoder.grid.boxes[index]
        logging.warning(
            "labels of box %s of an earlier attempt are missing or damaged; it is "
            "decoded again",
            box,
        )
        self.decoder(index)
        labels = self._read(index)
        if labels is None or checksum_of(labels) != record.checksum:
            raise InputError(
                f"box {box} of {self.decoder.affinities.source} gives other labels than "
                f"when this decode began; remove {self.output.source} and decode again"
            )
        return labels

    def _read(self, index: int) -> UInt[np.ndarray, "x y z"] | None:
        try:
            return self.decoder.provisional.read(self.decoder.grid.boxes[index])
        except ValueError:  # a chunk that cannot be decompressed
            return None


@dataclasses.dataclass(frozen=True)
class LabelCheck:
    """`check(index)` is the checksum of the labels in a box; -1 where unreadable.

    Of values, since boxes that are no whole chunks share files.
    """

    output: Volume
    grid: BoxGrid

    def __call__(self, index: int) -> int:
        try:
            return checksum_of(self.output.read(self.grid.boxes[index]))
        except ValueError:  # a chunk that cannot be decompressed
            return -1


def all_files(output: Volume) -> dict[str, stored.Fact]:
    """Every chunk file of an output on disk, for its manifest."""
    return output.chunk_facts(..., output.source)


def remove_chunks(output: Volume) -> None:
    """Every chunk file of an output on disk."""
    for name, fact in all_files(output).items():
        if fact is not None:
            os.remove(os.path.join(output.source, name))


def warn_of_damage(what: str, boxes: list[Box]) -> None:
    """Says which boxes of an earlier attempt are made again."""
    if boxes:
        logging.warning(
            "%s of %d boxes of an earlier attempt are missing or damaged, the first of "
            "them %s; they are made again",
            what,
            len(boxes),
            boxes[0],
        )
