"""npy files as TensorStores, mapped into memory.

numpy's own reader checks the header; PyTC has no reader for them.
"""

import functools
import os
import pathlib
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import claims
from nisbjax.store.views import chunk_of, damage, view


def open_npy(path: pathlib.Path) -> ts.TensorStore:
    """The array of a regular file; in any byte order, C or Fortran.

    Raises:
      InputError: a header that is not one, or that claims more than the file holds.
    """
    stamp = os.stat(path).st_mtime_ns
    try:
        with open(path, "rb") as file:
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if major > 1:
                read = np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            start = file.tell()
    except Exception as error:  # noqa: BLE001 (numpy evaluates the header as a Python literal)
        raise InputError(f"{path} cannot be read as npy: {error}") from None
    dtype = claims.require_numbers(path, dtype)
    chunks = chunk_of(tuple(shape))
    claims.require_possible(path, shape, chunks, dtype.itemsize)
    voxels = 1
    for length in shape:
        voxels *= length
    if voxels == 0:
        raise InputError(f"{path} is empty: its shape is {shape}; write it again")
    claims.require_bytes(path, os.path.getsize(path), start + voxels * dtype.itemsize)
    reader = functools.partial(_read, str(path.absolute()), stamp)
    return view(reader, shape, dtype, chunks)


@functools.lru_cache(maxsize=8)
def _at(path: str, stamp: int) -> np.ndarray:
    del stamp
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read(path: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any) -> None:
    index = domain.index_exp
    try:
        chunk[...] = _at(path, stamp)[index]
    except (OSError, ValueError, IndexError) as error:
        box = ",".join(f"{i.start}:{i.stop}" for i in index)
        raise damage(path, f"the box {box}", error) from None
