"""zarr arrays (v2 and v3) of any program, looked at before TensorStore opens them.

The metadata are checked by arithmetic, the separator in chunk names by what the folder
holds (without the word for it, nested chunks read as zeros in TensorStore and zarr), and
axes and voxel size are looked up in the groups above (`scales`).
"""

import itertools
import math
import os
import pathlib
import re
from typing import Any

import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import claims, places, scales, voxel_size
from nisbjax.store.attributes import read_json_object
from nisbjax.store.places import Address, Place
from nisbjax.store.views import words

_LOOKED_AT = 1 << 16  # entries of a folder whose metadata name the separator
_MOST_INNER = 1 << 27  # chunks of a shard, whose index is read whole: 2 GB
_NUMBERS = re.compile(r"\d+(\.\d+)*")
_CHUNK = re.compile(r"(c\.)?\d+(\.\d+)*")
_CODE = re.compile(r"[<>|=]?([biuf])(\d+)")


def zarr_spec(path: Place, driver: str) -> dict[str, Any]:
    """TensorStore's specification of an array, `zarr` (v2) or `zarr3`."""
    return places.spec_of(driver, path)


def open_zarr(
    path: Place, writable: bool
) -> tuple[ts.TensorStore, dict[str, Any], dict[str, Any]]:
    """An array, its attributes, and further words on its axes.

    Args:
      path: of the array's folder.
      writable: whether it will be written in place.

    Raises:
      InputError: no array, metadata that cannot be, or codecs that are not known here.
    """
    facts: dict[str, Any] = {}
    if metadata := _metadata(path / ".zarray"):
        spec = zarr_spec(path, "zarr")
        attributes = read_json_object(path / ".zattrs") or {}
        _check_v2(path, metadata)
        separator = _separator(path, metadata)
        if separator == "/" and isinstance(path, pathlib.Path):
            _require_chunk_files(path, path, len(metadata["shape"]))
        if "dimension_separator" not in metadata:
            spec["metadata"] = {"dimension_separator": separator}
    elif metadata := _metadata(path / "zarr.json"):
        if metadata.get("node_type") == "group":
            raise InputError(
                f"{path} is a zarr group; name an array inside it{_inside(path)}"
            )
        spec = zarr_spec(path, "zarr3")
        attributes = metadata.get("attributes") or {}
        if not isinstance(attributes, dict):
            attributes = {}
        facts["dimension_names"] = metadata.get("dimension_names")
        _check_v3(path, metadata)
        if isinstance(path, pathlib.Path):
            root, levels = _chunks_of_v3(path, metadata)
            _require_chunk_files(path, root, levels)
    else:
        raise InputError(f"{path} is a folder without a zarr array{_inside(path)}")
    words_above, size = scales.above(path)
    facts.update(words_above)
    if size is not None:
        attributes = {voxel_size.KEY: size, **attributes}
    try:
        store = ts.open(
            spec, read=True, write=writable, context=places.context_of(path)
        ).result()
    except Exception as error:  # noqa: BLE001 (of TensorStore, which has a few types for all)
        raise InputError(
            f"{path} cannot be read as a zarr array: {words(error)}"
        ) from None
    claims.require_numbers(path, store.dtype.numpy_dtype)
    chunks = store.chunk_layout.read_chunk.shape or store.shape
    chunks = tuple(c or s or 1 for c, s in zip(chunks, store.shape, strict=True))
    itemsize = store.dtype.numpy_dtype.itemsize
    claims.require_possible(path, store.shape, chunks, itemsize)
    return store, attributes, facts


def _metadata(path: Place) -> dict[str, Any] | None:
    found = read_json_object(path)
    if found == {}:
        raise InputError(f"{path} is empty; wanted the metadata of a zarr array")
    return found


def _inside(path: Place) -> str:
    try:
        found = [
            p.parent.name for n in (".zarray", "zarr.json") for p in path.glob(f"*/{n}")
        ]
    except OSError:
        found = []
    return f"; it holds {', '.join(sorted(found))}" if found else ""


def _check_v2(path: Place, metadata: dict[str, Any]) -> None:
    dtype = metadata.get("dtype")
    code = _CODE.fullmatch(dtype) if isinstance(dtype, str) else None
    if code is None:
        raise claims.no_numbers(path, f"the type {dtype!a}")
    shape, chunks = metadata.get("shape"), metadata.get("chunks")
    claims.require_possible(path, shape, chunks, min(int(code[2]), 1 << 40))
    separator = metadata.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise InputError(
            f"{path} has dimension_separator {separator!a}; wanted '.' or '/'"
        )


def _check_v3(path: Place, metadata: dict[str, Any]) -> None:
    """Shape and chunks, those inside shards too; TensorStore checks all else."""
    shape: Any = metadata.get("shape")
    grid = metadata.get("chunk_grid")
    outer: Any = grid.get("configuration") if isinstance(grid, dict) else None
    outer = outer.get("chunk_shape") if isinstance(outer, dict) else None
    codecs = metadata.get("codecs")
    sharded = False
    chunks: Any = outer
    for codec in codecs if isinstance(codecs, list) else ():
        if isinstance(codec, dict) and codec.get("name") == "sharding_indexed":
            inner = codec.get("configuration")
            chunks = inner.get("chunk_shape") if isinstance(inner, dict) else None
            sharded = True
            break
    claims.require_possible(path, shape, chunks, 1)
    if sharded:
        claims.require_possible(path, outer, chunks, 1)
        inner = (-(-a // b) for a, b in zip(outer, chunks, strict=True))
        if math.prod(inner) > _MOST_INNER:
            raise InputError(
                f"{path} claims shards of {outer} in chunks of {chunks}; wanted at most "
                f"{_MOST_INNER} chunks in a shard"
            )


def _separator(path: Place, metadata: dict[str, Any]) -> str:
    """What stands between the numbers of a chunk's name; settled by the folder's entries."""
    named = metadata.get("dimension_separator")
    if isinstance(path, Address):
        return named or _separator_at(path, len(metadata["shape"]))
    flat = nested = False
    try:
        with os.scandir(path) as entries:
            for entry in itertools.islice(entries, _LOOKED_AT if named else None):
                numbers = bool(_NUMBERS.fullmatch(entry.name))
                if numbers and not entry.is_file():
                    _require_folder_of_chunks(path, entry)
                    nested = True
                flat = flat or (numbers and "." in entry.name)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(metadata["shape"]) < 2:
        return named or "."
    held = "both 0.0.0 and 0/0/0" if flat else "0/0/0"
    if (flat and nested) or (named == "." and nested) or (named == "/" and flat):
        says = (
            f"says that {named!r} separates" if named else "does not say what separates"
        )
        held = held if nested else "0.0.0"
        raise InputError(
            f"{path} {says} the numbers in its chunks' names, and holds names like "
            f"{held}; write dimension_separator into its .zarray as it is, and remove "
            "chunks of the other kind"
        )
    return named or ("/" if nested else ".")


def _separator_at(path: Address, rank: int) -> str:
    """The same at an address, whose entries nobody lists: by the first chunk."""
    first = "/".join("0" * rank)
    return "/" if rank > 1 and (path / first).exists() else "."


def _chunks_of_v3(
    path: pathlib.Path, metadata: dict[str, Any]
) -> tuple[pathlib.Path, int]:
    """The folder of the chunk files, and how many levels down they lie in it."""
    encoding: Any = metadata.get("chunk_key_encoding")
    named: Any = encoding.get("configuration") if isinstance(encoding, dict) else None
    is_default = not isinstance(encoding, dict) or encoding.get("name") != "v2"
    separator = named.get("separator") if isinstance(named, dict) else None
    is_nested = separator == "/" or (separator is None and is_default)
    if not is_nested:
        return path, 1
    return (path / "c" if is_default else path), max(len(metadata["shape"]), 1)


def _require_chunk_files(path: pathlib.Path, folder: pathlib.Path, levels: int) -> None:
    """Refuses a chunk that is no file, among the first some ten thousand entries."""
    left, waiting = _LOOKED_AT, [(folder, levels)]
    while waiting and left > 0:
        at, levels = waiting.pop()
        try:
            with os.scandir(at) as entries:
                for entry in itertools.islice(entries, left):
                    left -= 1
                    if not _CHUNK.fullmatch(entry.name):
                        continue
                    if levels > 1 and entry.is_dir():
                        waiting.append((pathlib.Path(entry.path), levels - 1))
                    elif levels > 1 or not entry.is_file():
                        name = os.path.relpath(entry.path, path)
                        raise no_file(path, name)
        except FileNotFoundError:  # nothing was ever written
            continue
        except OSError as error:
            raise InputError(f"{at} cannot be read: {error.strerror}") from None


def no_file(path: pathlib.Path, name: str) -> InputError:
    """The error for a chunk that is a folder, a pipe or a link to nothing."""
    return InputError(
        f"{path} has a chunk {name} that is no file (a folder, pipe or broken "
        "link); copy or write it again"
    )


def _require_folder_of_chunks(path: pathlib.Path, entry: os.DirEntry) -> None:
    """Refuses what TensorStore takes for a chunk that was never written, or waits for."""
    if "." in entry.name or not entry.is_dir():
        raise no_file(path, entry.name)
