"""Blosc2 arrays in a file (.b2nd), as nnU-Net keeps its volumes: read by python-blosc2.

Metadata of variable length are the attributes. An array without a word for its axes is read as any
other. PyTC reads none.
"""

import functools
import os
import pathlib
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import claims, extras
from nisbjax.store.attributes import tidy
from nisbjax.store.views import damage, view

SUFFIX = ".b2nd"
EXTRA = "blosc2"


def open_blosc2(path: pathlib.Path) -> tuple[ts.TensorStore, dict[str, Any]]:
    """The array of a regular file, and its attributes.

    Raises:
      InputError: python-blosc2 is not installed, or the file holds no array of numbers.
    """
    stamp = os.stat(path).st_mtime_ns
    found = _at(str(path.absolute()), stamp)
    dtype = claims.require_numbers(path, found.dtype)
    shape, chunks = tuple(map(int, found.shape)), tuple(map(int, found.chunks))
    chunks = tuple(max(min(c, s), 1) for c, s in zip(chunks, shape, strict=True))
    claims.require_possible(path, shape, chunks, dtype.itemsize)
    reader = functools.partial(_read, str(path.absolute()), stamp)
    store = view(reader, shape, dtype.newbyteorder("="), chunks)
    return store, attributes_of(found)


def attributes_of(array: Any) -> dict[str, Any]:
    """Metadata of an open array that can be read as JSON."""
    found = {}
    for name in array.schunk.vlmeta.getall():
        found[tidy(name)] = tidy(array.schunk.vlmeta[name])
    return found


@functools.lru_cache(maxsize=8)
def _at(path: str, stamp: int) -> Any:
    del stamp
    blosc2 = extras.imported("blosc2", EXTRA, path)
    try:
        found = blosc2.open(path, mode="r")
        if not isinstance(found, blosc2.NDArray):
            raise TypeError(f"it holds {type(found).__name__}")
    except Exception as error:  # noqa: BLE001 (RuntimeError, ValueError, KeyError, ..)
        raise InputError(f"{path} cannot be read as a Blosc2 array: {error}") from None
    return found


def _read(path: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any) -> None:
    try:
        chunk[...] = _at(path, stamp)[domain.index_exp]
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (as above)
        box = ",".join(f"{i.start}:{i.stop}" for i in domain.index_exp)
        raise damage(path, f"the box {box}", error) from None
