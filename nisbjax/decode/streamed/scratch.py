"""What a streamed decode keeps between its steps, and how much of that is believed.

Provisional labels and the records of boxes lie in a folder inside the output, so they go
with it when it is removed. A box's line in the output's manifest has the checksum of its
record, and the record has that of its labels: what was lost or changed between two attempts
is decoded again. PyTC's streamed decoder takes whatever chunk files it finds.
"""

import os
import pathlib
import shutil

import numpy as np
from absl import logging
from isal import isal_zlib
from jaxtyping import Shaped

from nisbjax.store.volume import Volume, create_zarr
from nisbjax.typing import Triple

NAME = ".scratch"
# Of what lies in it. Raised by whoever changes what boxes leave, or what they make of the
# same affinities: what another version left is not gone on with.
FORMAT = 2
_FAST = {"id": "blosc", "cname": "lz4", "clevel": 1, "shuffle": 2}
_BLOCK_BYTES = 1 << 20


def open_labels(folder: pathlib.Path, shape: Triple, chunks: Triple) -> Volume:
    """The provisional labels [x y z]: new, or those of an earlier attempt.

    Where their metadata are damaged, the whole folder is made again.
    """
    path = folder / "provisional.zarr"

    def made() -> Volume:
        return create_zarr(
            path,
            shape=shape,
            dtype=np.uint32,
            chunks=chunks,
            axes="xyz",
            compressor=_FAST,
        )

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return made()
    except ValueError:  # InputError is one
        if not (path / ".zarray").exists():
            raise  # not the array's fault
    logging.warning("%s is damaged; what lies beside it is made again", path)
    shutil.rmtree(folder)
    return made()


def record_path(folder: pathlib.Path, index: int) -> pathlib.Path:
    """Where a box leaves what its neighbours must know."""
    return folder / f"{index}.npz"


def table_path(folder: pathlib.Path, index: int) -> pathlib.Path:
    """Final label of each label of a box, then of its orphans."""
    return folder / f"{index}.table.npy"


def is_sound(folder: pathlib.Path, index: int, checksum: object) -> bool:
    """Whether the record of a box is there, with this checksum."""
    try:
        return checksum_of_file(record_path(folder, index)) == checksum
    except OSError:
        return False


def checksum_of_file(path: str | os.PathLike) -> str:
    """Length and crc32 of a file, as text."""
    value = length = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            value = isal_zlib.crc32(block, value)
            length += len(block)
    return f"{length}:{value:08x}"


def checksum_of(values: Shaped[np.ndarray, "..."]) -> int:
    """crc32 of values in C order."""
    return isal_zlib.crc32(np.ascontiguousarray(values))
