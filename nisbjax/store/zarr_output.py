"""A zarr v2 array to write to: a new one, or the one that an interrupted writer left.

An array of another shape, type or chunks under the same name is refused before anything is
written. PyTC's writers replace what is there.
"""

import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import files, formats

_COMPRESSOR = {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1}


def create(
    path: str | os.PathLike,
    wanted: Mapping[str, Any],
    attributes: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> ts.TensorStore:
    """Makes an array on disk, or opens the one that is there.

    Args:
      path: of its folder.
      wanted: its `metadata`.
      attributes: written where it has none yet; else they are those of whoever finished it.
      overwrite: whether what is there goes first.

    An array that is there goes on with the compressor that it began with.

    Raises:
      InputError: an array of other metadata stands there and `overwrite` is False.
      ValueError: TensorStore's, where the file system does not let one be made.
    """
    path = formats.local_path(str(path))
    if overwrite and path.exists():
        shutil.rmtree(path)
    spec = formats.zarr_spec(path, "zarr") | {"metadata": wanted}
    _require_own_metadata(path)
    spec["metadata"] = _compressed_as_found(path, wanted)
    try:
        store = ts.open(spec, open=True, create=True, read=True, write=True).result()
    except ValueError:
        _require_fitting(path, wanted)
        raise  # a full disk, no right; the error says which
    if not _has_attributes(path):
        write_attributes(path, attributes)
    return store


def require_writable(
    path: str | os.PathLike,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
) -> None:
    """Refuses what `create_zarr` would, for it is in the way; writes nothing.

    Raises:
      InputError: an array of another shape, type or chunks, or stored in another way.
    """
    _require_own_metadata(formats.local_path(str(path)))
    _require_fitting(formats.local_path(str(path)), metadata(shape, dtype, chunks))


def metadata(
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    fill_value: Any = 0,
    compressor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `.zarray` is to say; chunks are cut to the shape, None is zstd in blosc."""
    chunks = tuple(min(c, s) for c, s in zip(chunks, shape, strict=True))
    return {
        "shape": list(shape),
        "chunks": list(chunks),
        "dtype": np.dtype(dtype).str,
        "fill_value": fill_value,
        "compressor": dict(compressor or _COMPRESSOR),
        "dimension_separator": "/" if math.prod(shape) > 1 << 33 else ".",
        "order": "C",
        "filters": None,
    }


def _require_fitting(path: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    if _another_there(path, wanted):
        raise InputError(
            f"{path} exists with another shape, type or chunks than "
            f"{tuple(wanted['shape'])} {np.dtype(wanted['dtype'])} in "
            f"{tuple(wanted['chunks'])}, or stored in another way; remove it or name "
            "another output"
        )


def _compressed_as_found(path: pathlib.Path, wanted: Mapping[str, Any]) -> Any:
    """`wanted`, with the compressor of the array that is there, if it is one in blosc."""
    try:
        found = json.loads((path / ".zarray").read_bytes())["compressor"]
    except (OSError, ValueError, KeyError, TypeError):
        return wanted
    alike = isinstance(found, dict) and found.get("id") == wanted["compressor"]["id"]
    return {**wanted, "compressor": found} if alike else wanted


def _another_there(path: pathlib.Path, wanted: Mapping[str, Any]) -> bool:
    """Whether an array of other metadata is in the way."""
    wanted = _compressed_as_found(path, wanted)
    try:
        found = json.loads((path / ".zarray").read_bytes())
    except OSError:  # nothing there, or no right to look
        return False
    except ValueError:  # what was an array, and cannot be written to
        return True
    if not isinstance(found, dict):
        return True
    found = {"dimension_separator": ".", **found}
    # TensorStore writes more of a compressor than it was asked for.
    return any(
        found.get(key) != value
        if not isinstance(value, dict) or not isinstance(found.get(key), dict)
        else not value.items() <= found[key].items()
        for key, value in wanted.items()
    )


def _require_own_metadata(path: pathlib.Path) -> None:
    """Refuses what is no file where an array's metadata go: a pipe would be waited for."""
    for name in (".zarray", ".zattrs"):
        if os.path.lexists(path / name):
            files.require_regular(path / name)


def _has_attributes(path: pathlib.Path) -> bool:
    try:
        return isinstance(json.loads((path / ".zattrs").read_bytes()), dict)
    except (FileNotFoundError, ValueError):
        return False


def write_attributes(path: str | os.PathLike, attributes: Mapping[str, Any]) -> None:
    """Replaces the attributes of a zarr v2 array (TensorStore's driver cannot)."""
    files.write_json(pathlib.Path(path) / ".zattrs", dict(attributes))
