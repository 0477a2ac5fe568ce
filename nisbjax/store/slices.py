"""Folders of slices as TensorStores: PNG, TIFF or JPEG files, one for each plane of z.

Slices follow one another in the order of the numbers in their names, so that slice 10 stands
behind slice 9 and not behind slice 1, as PyTC's and BANIS's sorting by text has it. A plane
is decoded when it is read.
"""

import functools
import os
import pathlib
import re
import stat
from collections import Counter
from typing import Any

import imagecodecs
import numpy as np
import tensorstore as ts
import tifffile
from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import claims, numeric_order
from nisbjax.store.views import damage, view

# Suffix -> the format of which it is one.
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_METADATA = (".zarray", ".zgroup", ".zattrs", "zarr.json")
_Stamps = tuple[tuple[str, int, int], ...]  # name, size, time of change


def is_slice(path: pathlib.Path) -> bool:
    """Whether a file can be nothing but one plane: PNG and JPEG have no stacks."""
    return _FORMATS.get(path.suffix.lower()) in ("PNG", "JPEG")


def is_folder_of(path: pathlib.Path) -> bool:
    """Whether a folder holds slices, and no zarr array or group."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    if any(name in _METADATA for name in names):
        return False
    return any(_format(name) for name in names)


def open_slices(path: pathlib.Path) -> tuple[ts.TensorStore, str]:
    """The slices of a folder as one array, and its axes: z y x, or z y x c of colours.

    Files of other kinds and hidden ones are left alone.

    Raises:
      InputError: slices of two formats or of one number, one that cannot be read, that holds
        several planes, or whose shape or type is not the first one's.
    """
    stamps = _stamps(path)
    first = _checked(str(path.absolute()), stamps)
    shape = (len(stamps), *first.shape)
    dtype = claims.require_numbers(path, first.dtype)
    chunks = (1, *first.shape)
    claims.require_possible(path, shape, chunks, dtype.itemsize)
    reader = functools.partial(_read, str(path.absolute()), stamps)
    store = view(reader, shape, dtype.newbyteorder("="), chunks)
    return store, "zyxc" if first.ndim == 3 else "zyx"


def require_exact(path: pathlib.Path) -> None:
    """Refuses slices whose numbers are not those that were written, for labels.

    Raises:
      InputError: a folder of JPEG.
    """
    if is_folder_of(path) and _format(_stamps(path)[0][0]) == "JPEG":
        raise InputError(
            f"{path} holds JPEG, which changes the numbers of labels; wanted PNG or TIFF"
        )


def _format(name: str) -> str:
    if name.startswith("."):
        return ""
    return _FORMATS.get(os.path.splitext(name)[1].lower(), "")


def _stamps(folder: pathlib.Path) -> _Stamps:
    """The slices, in their order."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _format(entry.name):
                    facts = entry.stat()
                    _require_file(folder / entry.name, facts.st_mode)
                    found.append((entry.name, facts.st_size, facts.st_mtime_ns))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    formats = Counter(_format(name) for name, _, _ in found)
    if len(formats) > 1:
        counts = " and ".join(f"{n} of {f}" for f, n in sorted(formats.items()))
        raise InputError(
            f"{folder} holds {counts}; wanted slices of one format: move the others to a "
            "folder of their own"
        )
    return tuple(sorted(found, key=lambda stamp: numeric_order.key(stamp[0])))


def _require_file(path: pathlib.Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no file; wanted a slice, or another name for it")


@functools.lru_cache(maxsize=8)
def _checked(folder: str, stamps: _Stamps) -> np.ndarray:
    """The first slice; what is odd about their numbers is refused or said once."""
    names = [name for name, _, _ in stamps]
    _require_numbers(folder, names)
    first = _decoded(folder, names[0])
    colours = first.ndim == 3 and first.shape[-1] <= 4
    if not (first.ndim == 2 or colours) or _planes(folder, names[0]) > 1:
        raise InputError(
            f"{folder}/{names[0]} has shape {first.shape}; wanted one plane in each file of "
            "a folder of slices"
        )
    if first.size == 0:
        raise InputError(f"{folder}/{names[0]} is empty; write it again")
    _require_alike(folder, names[-1], first)
    return first


def _require_numbers(folder: str, names: list[str]) -> None:
    """Refuses two slices of one number; says where one is missing."""
    keys = [tuple(piece[:2] for piece in numeric_order.key(_stem(n))) for n in names]
    words = [re.sub(r"\d+", "#", _stem(n)) for n in names]
    for before, name, one, other, word, also in zip(
        names, names[1:], keys, keys[1:], words, words[1:], strict=False
    ):
        if one == other and word == also:
            raise InputError(
                f"{folder} holds {before} and {name}, two slices of one number; move one away"
            )
    numbers = [[int(n) for n in re.findall(r"\d+", _stem(name))] for name in names]
    if len(set(words)) > 1 or len(names) < 3:
        return
    for place in range(len(numbers[0])):
        counted = [n[place] for n in numbers]
        steps = np.diff(counted)
        if (steps <= 0).any():  # not the number that counts slices
            continue
        wide = np.flatnonzero(steps > steps.min())
        if len(wide):
            logging.warning(
                "%s: no slice between %s and %s (%d such gaps); they are read as neighbours",
                folder,
                names[wide[0]],
                names[wide[0] + 1],
                len(wide),
            )


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _require_alike(folder: str, name: str, first: np.ndarray) -> np.ndarray:
    plane = _decoded(folder, name)
    if plane.shape != first.shape or plane.dtype != first.dtype:
        raise InputError(
            f"{folder}/{name} has shape {plane.shape} of {plane.dtype}, and the first slice "
            f"{first.shape} of {first.dtype}; wanted slices that are alike"
        )
    return plane


def _decoded(folder: str, name: str) -> np.ndarray:
    path = os.path.join(folder, name)
    try:
        if _format(name) == "TIFF":
            return tifffile.imread(path, maxworkers=1)
        return imagecodecs.imread(path)
    except Exception as error:  # noqa: BLE001 (every codec has its own)
        raise damage(path, "it", error) from None


def _planes(folder: str, name: str) -> int:
    if _format(name) != "TIFF":
        return 1
    with tifffile.TiffFile(os.path.join(folder, name)) as file:
        return len(file.pages)


def _read(folder: str, stamps: _Stamps, domain: Any, chunk: np.ndarray, _: Any) -> None:
    index = domain.index_exp
    first = _checked(folder, stamps)
    for at, plane in enumerate(range(index[0].start, index[0].stop)):
        chunk[at] = _require_alike(folder, stamps[plane][0], first)[index[1:]]
