"""What an HDF5 dataset holds, without its attributes and its neighbours in the file.

For fingerprints: chunks as they lie, so that nothing is inflated and no handle stays open for
which another program that writes the file would have to wait.
"""

import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import h5py
import numpy as np

from nisbjax.store.hdf5 import choose
from nisbjax.store.views import chunk_of, damage

Boxes = Iterable[tuple[slice, ...]]


def content(
    path: pathlib.Path,
    dataset: str | None,
    chosen: Callable[[tuple[int, ...], tuple[int, ...]], Boxes],
) -> Iterator[bytes]:
    """Bytes that the values take in the file, its filters, and some chunks.

    Args:
      path: of a regular file.
      dataset: its name; `main`, or the only one, where None.
      chosen: boxes of the chunks, of the shape and of that of a chunk.

    Raises:
      InputError: no such dataset, or a chunk that cannot be read.
    """
    with h5py.File(path, "r") as file:
        found = choose(path, file, dataset)
        chunks = found.chunks or chunk_of(found.shape)
        filters = found.id.get_create_plist()
        named = [filters.get_filter(i)[:3] for i in range(filters.get_nfilters())]
        yield f"{found.id.get_storage_size()} {chunks} {named}\n".encode()
        for box in chosen(found.shape, chunks):
            try:
                yield _values(found, box)
            except (OSError, RuntimeError) as error:
                raise damage(path, f"its chunk at {_start(box)}", error) from None


def _values(found: Any, box: tuple[slice, ...]) -> bytes:
    if not found.chunks:
        return np.ascontiguousarray(found[box]).tobytes()
    if found.id.get_chunk_info_by_coord(_start(box)).byte_offset is None:
        return b""  # never written
    return found.id.read_direct_chunk(_start(box))[1]


def _start(box: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(i.start for i in box)
