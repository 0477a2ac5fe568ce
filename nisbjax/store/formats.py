"""Which reader opens a file: zarr, HDF5, npy, TIFF and slices, by what the path is.

Nothing is opened before it is known to be a folder or a regular file, since a pipe or
device under such a name would hold the reader for ever. PyTC goes by the suffix alone.
"""

import os
import pathlib
import stat
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import axes, slices
from nisbjax.store.hdf5 import open_hdf5
from nisbjax.store.npy import open_npy
from nisbjax.store.tiff import open_tiff
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
    path: pathlib.Path, dataset: str | None, writable: bool
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    """The array in a file or folder, what it says of itself, and of its axes besides.

    Args:
      path: of a zarr array's folder, of a folder of slices, or of an HDF5, npy or TIFF
        file.
      dataset: inside an HDF5 file; `main`, or the only one, where None.
      writable: only zarr.

    Returns:
      The array as stored, its attributes as plain JSON values, and further words with
      their values for `axes.named_axes`.

    Raises:
      InputError: nothing that can be read, or be written in place.
    """
    require_array_file(path)
    if path.is_dir() and (writable or not slices.is_folder_of(path)):
        return open_zarr(path, writable)
    if writable:
        raise InputError(f"{path} cannot be written in place; wanted a zarr array")
    if path.is_dir():
        store, letters = slices.open_slices(path)
        return store, {}, {"series": letters}
    suffix = path.suffix.lower()
    readers = (*HDF5, ".npy", ".tif", ".tiff")
    if suffix in readers:
        _require_readable(path)
    if is_hdf5(path):
        return open_hdf5(path, dataset)
    if suffix == ".npy":
        return open_npy(path), {}, {}
    if suffix in (".tif", ".tiff"):
        store, letters = open_tiff(path)
        return store, {}, {"series": letters}
    if slices.is_slice(path):
        raise InputError(f"{path} is one slice; name the folder that holds them all")
    raise InputError(
        f"{path} is not a zarr array, HDF5, npy or TIFF file, or a folder of slices"
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


def local_path(text: str) -> pathlib.Path:
    """A path of this machine, not an address such as `s3://bucket/raw`.

    Raises:
      InputError: an address.
    """
    if "://" in text or text.split("/")[0].endswith(":"):
        raise InputError(f"{text} is not a local path; copy the file here first")
    return pathlib.Path(text)


def is_there(path: str | os.PathLike) -> bool:
    """Whether something lies where a volume is named, be it a dataset of a file."""
    try:
        split_path(str(path))
    except InputError:
        return False
    return True


def split_path(text: str) -> tuple[pathlib.Path, str | None]:
    """Separates a dataset's name from the HDF5 file that it follows (`raw.h5/main`).

    Axes that are said behind the path (`axes.split_path`) are left out.

    Raises:
      InputError: nothing there, a device, or not on this machine.
    """
    text, _ = axes.split_path(text)
    path = local_path(text)
    if kind(path):
        require_array_file(path)
        return path, None
    for parent in path.parents:
        if is_hdf5(parent) and kind(parent) == "file":
            return parent, path.relative_to(parent).as_posix()
    raise InputError(f"no volume at {text}; check the path")
