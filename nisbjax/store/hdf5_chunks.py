"""Boxes of an HDF5 dataset, put together from chunks that are inflated here.

Several threads inflate at a time, which HDF5 does under one lock; PyTC reads through h5py.
A chunk that is damaged, short or of another size than its shape says ends in one line.
"""

import functools
import itertools
import math
from typing import Any

import h5py
import numpy as np

from nisbjax.errors import InputError
from nisbjax.store import filters
from nisbjax.store.views import damage


def read(
    path: str, name: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any
) -> None:
    """Fills an array with a box of a dataset: what TensorStore asks of a view.

    Args:
      path: of the file.
      name: of the dataset.
      stamp: when the file was written; see `hdf5.open_hdf5`.
      domain: of the box.
      chunk: to be filled.

    Raises:
      InputError: a chunk of the box is missing or damaged.
    """
    index = domain.index_exp
    try:
        source, chunks, undone = _at(path, name, stamp)
        if chunks is None:
            chunk[...] = source[index]
            return
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (h5py has one for each kind of damage)
        raise damage(path, f"{name} in {_box(index)}", error) from None
    starts = [range(i.start // c * c, i.stop, c) for i, c in zip(index, chunks)]
    for origin in itertools.product(*starts):
        try:
            whole, problem = _chunk(source, origin, chunks, undone)
        except Exception as error:  # noqa: BLE001
            raise damage(path, f"its chunk at {origin}", error) from None
        if problem:
            raise damage(path, f"its chunk at {origin}", problem)
        inside = tuple(
            slice(max(i.start, o), min(i.stop, o + c))
            for i, o, c in zip(index, origin, chunks)
        )
        target = tuple(
            slice(s.start - i.start, s.stop - i.start) for s, i in zip(inside, index)
        )
        if whole is None:
            chunk[target] = source.fillvalue
        else:
            cut = tuple(slice(s.start - o, s.stop - o) for s, o in zip(inside, origin))
            chunk[target] = whole[cut]


def _chunk(
    source: h5py.Dataset,
    origin: tuple[int, ...],
    chunks: tuple[int, ...],
    undone: filters.Pipeline,
) -> tuple[np.ndarray | None, str]:
    """One chunk, None where it was never written, and "" or what is wrong with it."""
    size = math.prod(chunks) * source.dtype.itemsize
    try:
        skipped, data = source.id.read_direct_chunk(origin)
    except (OSError, RuntimeError):
        if source.id.get_chunk_info_by_coord(origin).byte_offset is None:
            return None, ""
        raise
    if not undone:
        # HDF5 reads on behind an unfiltered chunk that is shorter than its shape says.
        data = data[: source.id.get_chunk_info_by_coord(origin).size]
    data, problem = filters.undo(data, undone, skipped, size)
    if problem:
        return None, problem
    return np.frombuffer(data, source.dtype).reshape(chunks), ""


def _box(index: tuple[slice, ...]) -> str:
    return ",".join(f"{i.start}:{i.stop}" for i in index)


@functools.lru_cache(maxsize=8)
def _at(
    path: str, name: str, stamp: int
) -> tuple[h5py.Dataset, tuple[int, ...] | None, filters.Pipeline]:
    """A dataset with its chunks and filters, which h5py would look up for every chunk.

    The chunks are None where HDF5 is to read them.
    """
    del stamp
    # The library's own chunk cache would only hold memory: chunks are inflated here.
    found: Any = h5py.File(path, "r", rdcc_nbytes=0)[name]
    applied = filters.pipeline(found)
    filters.require_known(f"{path}{name}", applied)
    own = all(code in filters.OWN for code, _ in applied)
    # Counting walks the file's index, and a dataset without a chunk has none to ask.
    chunked = found.chunks and own and found.id.get_num_chunks()
    return found, found.chunks if chunked else None, applied
