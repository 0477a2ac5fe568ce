"""The fingerprint of a volume: whether it is the one that something was made from.

A sha256 of names, sizes and a sample of the content, so that 40 GB cost as little as 4 MB.
PyTC notes the path of an image alone, under which another may stand by now.
"""

import hashlib
import math
import os
import pathlib
import random
from typing import Any

import numpy as np

from nisbjax.store import (
    axes,
    finished,
    formats,
    places,
    precomputed,
    remains,
    request_errors,
    scales,
    verified,
)
from nisbjax.store.volume import Volume, open_volume

_SAMPLED_PIECES = 64  # of a fingerprint
_PIECE_BYTES = 1 << 20
_METADATA = (".zarray", ".zattrs", "zarr.json", "attributes.json", "info")
_AS_THEY_LIE = ("xyz", "cxyz")  # how arrays without a word for their axes are read


def fingerprint(path: str | os.PathLike) -> str:
    """sha256 of an array's metadata, its files' names and sizes, and of 64 seeded pieces.

    At an address, where nothing is listed, it is of the metadata and the voxels of 64 chunks,
    and so is another than that of a copy here.

    Cheap for volumes of any size, and independent of where the volume lies. A piece is a
    whole chunk file of an array, or 1 MiB of a single file. Of a group of scales it is of
    the array that is read, and of what the group says of that. Hidden files are not the
    volume's content (our manifest grows), but for zarr's own.

    Raises:
      InputError: nothing there, or files that its manifest knows otherwise.
    """
    turned = _turned(str(path))
    named = str(path)
    place, inner = formats.split_path(named)
    digest = hashlib.sha256(repr(inner).encode() + turned.encode())
    draw = random.Random(0)
    if isinstance(place, places.Address):
        _add_remote(digest, place, open_volume(named), draw)
        return digest.hexdigest()
    path = place
    if path.is_dir():
        finished.require_finished(path)
        names = _content_names(path, inner)
        words = scales.above(path)
        if any(words):
            digest.update(f"{words}\n".encode())
        for name in names:
            digest.update(f"{name} {(path / name).stat().st_size}\n".encode())
        pieces = [n for n in names if n.rpartition("/")[2] not in _METADATA]
        chosen = draw.sample(pieces, min(_SAMPLED_PIECES, len(pieces)))
        ours = inner is None and finished.locate(path)
        guard = open_volume(path).guard if ours else None
        for name in [n for n in names if n not in set(pieces)] + chosen:
            content = (path / name).read_bytes()
            if isinstance(guard, verified.Guard):
                guard.check_file(name, content)
            digest.update(content)
        return digest.hexdigest()
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with open(path, "rb") as file:
        pieces = range(0, max(size, 1), _PIECE_BYTES)
        for start in draw.sample(pieces, min(_SAMPLED_PIECES, len(pieces))):
            file.seek(start)
            digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()


def _add_remote(
    digest: Any, place: places.Address, volume: Volume, draw: random.Random
) -> None:
    store, chunks = volume.store, volume.chunks
    digest.update(f"{store.shape} {store.dtype} {scales.above(place)}\n".encode())
    for name in _METADATA:
        digest.update(f"{name} ".encode() + ((place / name).read() or b""))
    grid = [-(-s // c) for s, c in zip(store.shape, chunks, strict=True)]
    count = math.prod(grid)
    chosen = draw.sample(range(count), min(_SAMPLED_PIECES, count))
    parts = []
    for number in chosen:
        index = np.unravel_index(number, grid)
        box = tuple(
            slice(int(i) * c, min((int(i) + 1) * c, s))
            for i, c, s in zip(index, chunks, store.shape, strict=True)
        )
        parts.append(store[box].read())
    for part in parts:
        try:
            digest.update(np.ascontiguousarray(part.result()).tobytes())
        except Exception as error:  # noqa: BLE001 (TensorStore has a few types for all)
            raise request_errors.unreachable(str(place), error) from None


def _turned(text: str) -> str:
    """Axes that are said behind a path, where the array would be read otherwise; else ""."""
    plain, said = axes.split_path(text)
    if said in ("", *_AS_THEY_LIE):
        return ""
    return said if open_volume(plain).stored_axes != said else ""


def _content_names(folder: pathlib.Path, scale: str | None) -> list[str]:
    """Files below a folder, relative to it, without hidden ones but zarr's own.

    Args:
      folder: of an array, or of a precomputed volume.
      scale: the key of the one that counts, of a precomputed volume.
    """
    if scale is None:
        return _names_below(folder, folder)
    return ["info", *_names_below(precomputed.folder_of(folder, scale), folder)]


def _names_below(folder: pathlib.Path, base: pathlib.Path) -> list[str]:
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        hidden = [part for part in parts if part.startswith(".")]
        if all(part in remains.METADATA for part in hidden):
            found.append(os.path.relpath(path, base))
    return found
