"""NIfTI files (.nii, .nii.gz), read by nibabel: x y z (t, c) as they lie, x the fastest.

Voxels are the array's, whatever its affine says of a patient's left and right; numbers are scaled
where the header says how. Files that other programs wrote from arrays z y x say so behind their
path (`em.nii#zyx`), as NIfTI has no word for it. PyTC loads them whole.
"""

import functools
import json
import math
import os
import pathlib
import weakref
from typing import Any

import numpy as np
import tensorstore as ts
from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import claims, extras, voxel_size
from nisbjax.store.attributes import tidy
from nisbjax.store.views import damage, view

SUFFIXES = (".nii", ".nii.gz")
EXTRA = "nifti"
_SLAB_BYTES = 1 << 22  # of planes of z, at once
_BY_RANK = {3: "xyz", 4: "xyzt", 5: "xyztc"}  # of the format
COMMENT = 6  # the code of an extension that holds text
_MOST_WORDS = 1 << 20  # bytes


def is_nifti(path: pathlib.Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def open_nifti(
    path: pathlib.Path,
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    """The array of a regular file, its voxel size and our own attributes, and its axes.

    Raises:
      InputError: nibabel is not installed; no NIfTI, numbers that cannot be, or a file that is
        shorter than it says.
    """
    extras.imported("nibabel", EXTRA, path)
    stamp = os.stat(path).st_mtime_ns
    image = _at(str(path.absolute()), stamp)
    shape, proxy = tuple(map(int, image.shape)), image.dataobj
    held = claims.require_numbers(path, proxy.dtype)
    scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
    dtype = np.dtype(np.float32) if scaled else held
    letters = _BY_RANK.get(len(shape), "")
    if not letters:
        raise InputError(f"{path} has shape {shape}; wanted 3 to 5 axes")
    row = math.prod(shape[:2]) * max(dtype.itemsize, held.itemsize)
    planes = max(1, min(shape[2], _SLAB_BYTES // max(row, 1)))
    chunks = (*(max(s, 1) for s in shape[:2]), planes, *(1,) * (len(shape) - 3))
    claims.require_possible(path, shape, chunks, dtype.itemsize)
    if not _is_packed(path):
        size = proxy.offset + math.prod(shape) * held.itemsize
        claims.require_bytes(path, os.path.getsize(path), size)
    reader = functools.partial(_read, str(path.absolute()), stamp)
    store = view(reader, shape, dtype.newbyteorder("="), chunks)
    return store, _attributes(image), {"series": letters}


def words(image: Any) -> dict[str, Any]:
    """The JSON of a comment in an open file's header, as we write it; else nothing."""
    for extension in getattr(image.header, "extensions", ()):
        if extension.get_code() == COMMENT:
            content = extension.get_content()
            try:
                found = json.loads(content[:_MOST_WORDS]) if content else None
            except (ValueError, TypeError, RecursionError):
                continue
            if isinstance(found, dict):
                return tidy(found)
    return {}


def _attributes(image: Any) -> dict[str, Any]:
    unit = image.header.get_xyzt_units()[0]
    sizes = [float(f"{float(s):.7g}") for s in image.header.get_zooms()[:3]]
    found = {k: v for k, v in words(image).items() if k != "axes"}
    if all(0 < s < math.inf for s in sizes):
        size = voxel_size.from_axes("xyz", sizes, _units(unit))
        if size is not None:
            found = {voxel_size.KEY: size, **found}
    return found


def _units(unit: str) -> list[str]:
    return [{"meter": "m", "mm": "mm", "micron": "um"}.get(unit, "")] * 3


def _is_packed(path: pathlib.Path | str) -> bool:
    return str(path).lower().endswith(".gz")


@functools.lru_cache(maxsize=8)
def _at(path: str, stamp: int) -> Any:
    del stamp
    nibabel = extras.imported("nibabel", EXTRA, path)
    try:
        image = nibabel.load(path, keep_file_open=_is_packed(path))
        if not isinstance(image, nibabel.Nifti1Image):
            raise TypeError(f"it is {type(image).__name__}")
    except Exception as error:  # noqa: BLE001 (nibabel has many for what is no NIfTI)
        raise InputError(f"{path} cannot be read as NIfTI: {error}") from None
    if _is_packed(path):
        weakref.finalize(image, _close, image.dataobj)
        logging.info(
            "%s is compressed as a whole, so that reading begins at its first voxel each "
            "time; convert it to zarr for crops",
            path,
        )
    return image


def _close(proxy: Any) -> None:
    """The stream that nibabel leaves open, so that slabs are read one behind the other."""
    opener = getattr(proxy, "_opener", None)
    if opener is not None:
        opener.close()


def _read(path: str, stamp: int, domain: Any, chunk: np.ndarray, _: Any) -> None:
    try:
        chunk[...] = _at(path, stamp).dataobj[domain.index_exp]
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (of gzip, zlib and nibabel)
        box = ",".join(f"{i.start}:{i.stop}" for i in domain.index_exp)
        raise damage(path, f"the box {box}", error) from None
