"""Chunk files that another program's array does not have: counted before it is read.

Writers may leave out chunks that equal the fill value, so a chunk that was lost looks like
one that is empty, to zarr and TensorStore and to PyTC. Nobody can tell the two apart but the
person who knows the file; so a stage says how many there are. In arrays that nisbjax wrote the
manifest knows (`verified`).
"""

import math
import os
import pathlib
from collections.abc import Iterator

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import axes, verified
from nisbjax.store.stored import ChunkFiles
from nisbjax.store.volume import Volume
from nisbjax.store.zarr_folder import no_file


def say(volume: Volume) -> str:
    """Says in the log how many chunks of a volume are absent; call it once in a stage.

    Args:
      volume: that will be read.

    Returns:
      What is said; "" where no chunk is absent, and where a manifest knows, or no file.

    Raises:
      InputError: a chunk is no file, which an opened array was not looked at for (only so
        many are).
    """
    folder = pathlib.Path(axes.split_path(volume.source)[0])
    if isinstance(volume.guard, verified.Guard) or not folder.is_dir():
        return ""
    files = volume.chunk_files or ChunkFiles.of_any(volume.store)
    if files is None:
        return ""
    count = math.prod(files.grid)
    absent = count - sum(1 for _ in _present(files, folder))
    if not absent:
        return ""
    said = (
        f"{absent:,} of {count:,} chunks are not there and read as the fill value "
        f"{volume.store.fill_value or 0}"
    )
    logging.info("%s: %s", folder, said)
    return said


def _present(files: ChunkFiles, folder: pathlib.Path) -> Iterator[str]:
    """Names of the chunk files that are there."""
    nested = files.separator == "/"
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(files.folder / inner) as entries:
                for entry in entries:
                    name = f"{inner}/{entry.name}" if inner else entry.name
                    if files.index(name) >= 0:
                        if not entry.is_file():
                            raise no_file(folder, name)
                        yield name
                    elif nested and entry.is_dir():
                        waiting.append(name)
        except OSError as error:
            raise InputError(
                f"{files.folder / inner} cannot be read: {error.strerror}"
            ) from None
