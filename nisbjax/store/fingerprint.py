"""The fingerprint of a volume: whether it is the one that something was made from.

A sha256 of how a volume is read, of names and sizes, and of a sample of the content, so that
40 GB cost as little as 4 MB. What people write beside (attributes, `omero`, more scales) is no
part of it; of words on axes it is what they mean. PyTC notes the path of an image alone, under
which another may stand by now.
"""

import hashlib
import json
import math
import os
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from nisbjax.store import (
    axes,
    files,
    finished,
    formats,
    hdf5_content,
    precomputed,
    remains,
    request_errors,
    verified,
    voxel_size,
)
from nisbjax.store.attributes import read_json_object
from nisbjax.store.fingerprint_versions import numbered
from nisbjax.store.places import Address, Place
from nisbjax.store.volume import Volume, open_volume

_SAMPLED_PIECES = 64  # of a fingerprint
_PIECE_BYTES = 1 << 20
_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json", "info")
_OF_N5 = "attributes.json"
_BY_RANK = {3: "xyz", 4: "cxyz"}  # how arrays without a word for their axes are read
# Attributes that say what the voxels are, or which part of an image they are.
_MEANT = (
    voxel_size.KEY,
    "voxel_offset",
    "offsets",
    "edge_stored_at",
    "box",
    "volume_shape",
    "source_fingerprint",
    "low_z",
    "high_z",
    "border_width",
    "bg_thresh",
)
# Of an array's metadata, what does not change how its chunks are read.
_FREE = ("attributes", "dimension_names", "consolidated_metadata")
_SAID_BY_N5 = ("dimensions", "blockSize", "dataType", "compression")
_SAID_BY_SCALE = (
    "size",
    "chunk_sizes",
    "encoding",
    "sharding",
    "compressed_segmentation_block_size",
)


def fingerprint(path: str | os.PathLike) -> str:
    """Version and sha256 of how an array is read, its files, and of 64 seeded pieces of it.

    Cheap for volumes of any size, and independent of where the volume lies. A piece is a
    whole chunk file of an array, a chunk of an HDF5 dataset, or 1 MiB of another
    single file. At an address, where nothing is listed, it is of the metadata and the voxels
    of 64 chunks, and so is another than that of a copy here. Of a group of scales it is of the
    array that is read. Hidden files are not the volume's content (our manifest grows).

    Raises:
      InputError: nothing there, or files that its manifest knows otherwise.
    """
    place, inner = formats.split_path(str(path))
    if isinstance(place, pathlib.Path) and place.is_dir():
        finished.require_finished(place)
    volume = open_volume(path)
    _, beside = axes.split_path(str(path))
    digest = hashlib.sha256(
        json.dumps(_facts(place, inner, volume, axes.choices_of(beside))).encode()
    )
    draw = random.Random(0)
    if isinstance(place, Address):
        _add_voxels(digest, volume, draw)
    elif place.is_dir():
        _add_files(digest, place, inner, volume, draw)
    elif formats.is_hdf5(place):
        for piece in hdf5_content.content(
            place, inner, lambda shape, chunks: _sampled(shape, chunks, draw)
        ):
            digest.update(piece)
    else:
        _add_pieces(digest, place, draw)
    return numbered(digest.hexdigest())


def _facts(
    place: Place, inner: str | None, volume: Volume, chosen: dict[str, int]
) -> dict[str, Any]:
    """How a volume is read, as JSON has it."""
    said = {k: volume.attributes[k] for k in _MEANT if k in volume.attributes}
    return {
        "inside": inner,
        "chosen": dict(sorted(chosen.items())),
        "shape": list(volume.shape),
        "dtype": volume.dtype.name,
        "axes": volume.stored_axes or _BY_RANK.get(volume.rank, ""),
        "said": files.plain(dict(sorted(said.items()))),
        "stored": _stored(place, inner),
    }


def _stored(place: Place, inner: str | None) -> Any:
    """What a folder's metadata say of its chunks; None of a file."""
    if isinstance(place, pathlib.Path) and not place.is_dir():
        return None
    if inner is not None:
        info = read_json_object(place / "info") or {}
        scales = [s for s in info.get("scales", ()) if s.get("key") == inner]
        return [info.get("data_type"), _named(scales[0] if scales else {})]
    for name in (".zarray", "zarr.json"):
        found = read_json_object(place / name)
        if found is not None:
            return dict(sorted((k, v) for k, v in found.items() if k not in _FREE))
    found = read_json_object(place / _OF_N5) or {}
    return {key: found[key] for key in _SAID_BY_N5 if key in found}


def _named(scale: dict[str, Any]) -> dict[str, Any]:
    return {key: scale[key] for key in _SAID_BY_SCALE if key in scale}


def _add_files(
    digest: Any, path: pathlib.Path, inner: str | None, volume: Volume, draw: Any
) -> None:
    """Names and sizes of the files of an array, and what some of them hold."""
    names = [n for n in _content_names(path, inner) if not _is_metadata(n)]
    for name in names:
        digest.update(f"{name} {(path / name).stat().st_size}\n".encode())
    ours = inner is None and finished.locate(path)
    guard = volume.guard if ours else None
    for name in draw.sample(names, min(_SAMPLED_PIECES, len(names))):
        content = (path / name).read_bytes()
        if isinstance(guard, verified.Guard):
            guard.check_file(name, content)
        digest.update(content)


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2] in (*_METADATA, _OF_N5)


def _add_voxels(digest: Any, volume: Volume, draw: random.Random) -> None:
    parts = [
        volume.store[box].read() for box in _sampled(volume.shape, volume.chunks, draw)
    ]
    for part in parts:
        try:
            digest.update(np.ascontiguousarray(part.result()).tobytes())
        except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
            raise request_errors.unreachable(volume.source, error) from None


def _sampled(
    shape: tuple[int, ...], chunks: tuple[int, ...], draw: random.Random
) -> Iterator[tuple[slice, ...]]:
    """Some of the chunks of an array."""
    grid = [-(-s // c) for s, c in zip(shape, chunks, strict=True)]
    count = math.prod(grid)
    for number in draw.sample(range(count), min(_SAMPLED_PIECES, count)):
        index = np.unravel_index(number, grid)
        yield tuple(
            slice(int(i) * c, min((int(i) + 1) * c, s))
            for i, c, s in zip(index, chunks, shape, strict=True)
        )


def _add_pieces(digest: Any, path: pathlib.Path, draw: random.Random) -> None:
    """Size of a single file, and some pieces of it."""
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with open(path, "rb") as file:
        pieces = range(0, max(size, 1), _PIECE_BYTES)
        for start in draw.sample(pieces, min(_SAMPLED_PIECES, len(pieces))):
            file.seek(start)
            digest.update(file.read(_PIECE_BYTES))


def _content_names(folder: pathlib.Path, scale: str | None) -> list[str]:
    """Files below a folder, relative to it, without hidden ones but zarr's own.

    Args:
      folder: of an array, or of a precomputed volume.
      scale: the key of the one that counts, of a precomputed volume.
    """
    below = folder if scale is None else precomputed.folder_of(folder, scale)
    return _names_below(below, folder)


def _names_below(folder: pathlib.Path, base: pathlib.Path) -> list[str]:
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        hidden = [part for part in parts if part.startswith(".")]
        if all(part in remains.METADATA for part in hidden):
            found.append(os.path.relpath(path, base))
    return found
