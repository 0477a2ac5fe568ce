"""npy and npz files: arrays of one's own, and any npy file as a TensorStore.

numpy's own reader checks the header; PyTC has no reader for them. All of the package reads
such files here, one header at a time: numpy parses a header as a Python literal, and where
two threads do that at once CPython 3.11 may raise "AST constructor recursion depth
mismatch" (it counts the depth of all threads in one number).
"""

import functools
import os
import pathlib
import threading
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import claims, files
from nisbjax.store.views import chunk_of, damage, view

_PARSING = threading.RLock()


def load(path: str | os.PathLike) -> np.ndarray:
    """The array of an npy file; never unpickled."""
    with _PARSING:
        return np.load(path, allow_pickle=False)


def save(path: str | os.PathLike, values: np.ndarray) -> None:
    """Writes an npy file in place, with the system's own error where the disk is full.

    numpy's own has no number then ("1920 requested and 1520 written").
    """
    values = np.asarray(values, order="C")
    with files.naming(path), open(path, "wb") as file:
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(values.data)


def mapped(path: str | os.PathLike, mode: Literal["r", "r+"] = "r") -> np.memmap:
    """The array of an npy file, mapped into memory; with `r+` it can be changed there."""
    with _PARSING:
        return np.load(path, mmap_mode=mode, allow_pickle=False)


class Archive:
    """The arrays of an npz file, read when they are asked for; never unpickled."""

    def __init__(self, file: str | os.PathLike | IO[bytes]):
        with _PARSING:
            self._arrays = np.load(file, allow_pickle=False)
        if not isinstance(self._arrays, np.lib.npyio.NpzFile):
            raise ValueError(  # noqa: TRY004 (of the file, as numpy's own errors are)
                "one array and no archive of arrays"
            )

    @property
    def names(self) -> list[str]:
        return self._arrays.files

    def __getitem__(self, name: str) -> np.ndarray:
        with _PARSING:
            return self._arrays[name]

    def all(self) -> dict[str, np.ndarray]:
        return {name: self[name] for name in self.names}

    def __enter__(self) -> "Archive":  # noqa: PYI034 (jaxtyping cannot read Self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._arrays.close()


def open_npy(path: pathlib.Path) -> ts.TensorStore:
    """The array of a regular file; in any byte order, C or Fortran.

    Raises:
      InputError: a header that is not one, or that claims more than the file holds.
    """
    stamp = os.stat(path).st_mtime_ns
    try:
        with _PARSING, open(path, "rb") as file:
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
    return mapped(path)


def _read(path: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any) -> None:
    index = domain.index_exp
    try:
        chunk[...] = _at(path, stamp)[index]
    except (OSError, ValueError, IndexError) as error:
        box = ",".join(f"{i.start}:{i.stop}" for i in index)
        raise damage(path, f"the box {box}", error) from None
