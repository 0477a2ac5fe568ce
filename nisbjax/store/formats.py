"""Which reader opens a file, by its path and what lies there.

Nothing is opened before it is known to be a folder or a regular file, since a pipe or
device under such a name would hold the reader for ever. PyTC goes by the suffix alone.
"""

import os
import pathlib
import stat
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import (
    address,
    axes,
    n5,
    nifti,
    places,
    precomputed,
    scales,
    slices,
    tiff,
)
from nisbjax.store.address import local_path
from nisbjax.store.blosc2_file import SUFFIX as BLOSC2
from nisbjax.store.blosc2_file import open_blosc2
from nisbjax.store.hdf5 import open_hdf5
from nisbjax.store.npy import open_npy
from nisbjax.store.places import Address, Place
from nisbjax.store.zarr_folder import open_zarr, zarr_spec

__all__ = [
    "HDF5",
    "is_hdf5",
    "kind",
    "local_path",
    "open_array",
    "require_array_file",
    "split_path",
    "zarr_spec",
]

HDF5 = (".h5", ".hdf5", ".hdf")


def open_array(
    path: Place, dataset: str | None, writable: bool
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    """The array in a file or folder, what it says of itself, and of its axes besides.

    Args:
      path: of a zarr or N5 array's folder, of a precomputed volume, of a folder of slices,
        or of an HDF5, npy, TIFF, NIfTI or Blosc2 file.
      dataset: inside an HDF5 file; `main`, or the only one, where None. Of a precomputed
        volume, the key of a scale.
      writable: only zarr.

    Returns:
      The array as stored, its attributes as plain JSON values, and further words with
      their values for `axes.named_axes`.

    Raises:
      InputError: nothing that can be read, or be written in place.
    """
    if isinstance(path, Address):
        return _open_remote(path, dataset, writable)
    require_array_file(path)
    if path.is_dir() and dataset is None and not writable:
        if n5.is_array(path):
            return n5.open_n5(path)
        if slices.is_folder_of(path):
            store, letters = slices.open_slices(path)
            return store, {}, {"series": letters}
    if path.is_dir() and dataset is None:
        return open_zarr(path, writable)
    if writable:
        raise InputError(f"{path} cannot be written in place; wanted a zarr array")
    if path.is_dir() and dataset is not None:
        return precomputed.open_precomputed(path, dataset)
    suffix = path.suffix.lower()
    readers = (*HDF5, ".npy", ".tif", ".tiff", BLOSC2)
    if suffix in readers or nifti.is_nifti(path):
        _require_readable(path)
    if is_hdf5(path):
        return open_hdf5(path, dataset)
    if suffix == ".npy":
        return open_npy(path), {}, {}
    if suffix in (".tif", ".tiff"):
        store, letters = tiff.open_tiff(path)
        return store, tiff.attributes_of(path), {"series": letters}
    if nifti.is_nifti(path):
        return nifti.open_nifti(path)
    if suffix == BLOSC2:
        return *open_blosc2(path), {}
    if slices.is_slice(path):
        raise InputError(f"{path} is one slice; name the folder that holds them all")
    raise InputError(
        f"{path} is not a zarr or N5 array, a precomputed volume, an HDF5, npy, TIFF, NIfTI "
        "or Blosc2 file, or a folder of slices"
    )


def _open_remote(
    path: Address, dataset: str | None, writable: bool
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    if writable:
        raise InputError(
            f"{path} is an address, which is not written in place; name a path here"
        )
    if dataset is not None:
        return precomputed.open_precomputed(path, dataset)
    return n5.open_n5(path) if n5.is_array(path) else open_zarr(path, False)


def require_exact(text: str) -> None:
    """Refuses volumes whose numbers are not those that were written, for labels.

    Raises:
      InputError: JPEG.
    """
    path, inner = split_path(text)
    if isinstance(path, pathlib.Path):
        slices.require_exact(path)
    if path.is_dir() and inner is not None and not precomputed.is_exact(path, inner):
        raise InputError(
            f"{path}/{inner} is encoded as JPEG, which changes the numbers of labels; "
            "wanted raw, compressed_segmentation or png"
        )


def require_array_file(path: pathlib.Path) -> None:
    """Refuses what would be read for ever, before anything opens it.

    Raises:
      InputError: a device, pipe or socket.
    """
    if kind(path) == "special":
        raise InputError(
            f"{path} is a device, pipe or socket; wanted a zarr array, HDF5, npy or TIFF "
            "file"
        )


def is_hdf5(path: pathlib.Path) -> bool:
    return path.suffix.lower() in HDF5


def kind(path: pathlib.Path) -> str:
    """`folder`, `file`, `special` (device, pipe, socket), or "" where nothing is.

    Raises:
      InputError: the path cannot be looked at.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)!r} cannot be read: {reason}") from None
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "special"


def _require_readable(path: pathlib.Path) -> None:
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if empty:
        raise InputError(f"{path} is empty: it has no bytes; write it again")


def is_there(path: str | os.PathLike) -> bool:
    """Whether something lies where a volume is named, be it a dataset of a file.

    Raises:
      InputError: an address that cannot be reached, or is none of a volume.
    """
    try:
        return _located(str(path)) is not None
    except InputError:
        if address.is_address(path):
            raise
        return False


def split_path(text: str) -> tuple[Place, str | None]:
    """Separates a dataset's name from the HDF5 file that it follows (`raw.h5/main`).

    Axes that are said behind the path (`axes.split_path`) are left out. A group of scales
    becomes the array of its finest, a precomputed volume its folder and a scale's key.

    Raises:
      InputError: nothing there, a device, not on this machine, or a group or volume without
        the scale.
    """
    found = _located(text)
    if found is None:
        path = places.place_of(axes.split_path(text)[0])
        reason = precomputed.missing(path) or scales.missing(path)
        raise InputError(reason or f"no volume at {path}; check the path")
    path, inner = found
    if inner is not None or (isinstance(path, pathlib.Path) and not path.is_dir()):
        return found
    scale = precomputed.locate(path)
    if scale is not None:
        return scale
    return n5.array_of(scales.array_of(path)), None


def _located(text: str) -> tuple[Place, str | None] | None:
    """What a path names, a file's dataset behind it; None where nothing is."""
    text, _ = axes.split_path(text)
    path = places.place_of(text)
    if isinstance(path, Address):
        found = precomputed.locate(path) or (
            (path, None) if path.is_dir() or n5.array_of(path) != path else None
        )
        if found is None:
            path.require_allowed()
        return found
    if kind(path):
        require_array_file(path)
        return path, None
    for parent in path.parents:
        if is_hdf5(parent) and kind(parent) == "file":
            return parent, path.relative_to(parent).as_posix()
    return precomputed.locate(path)  # a scale of which no chunk was written
