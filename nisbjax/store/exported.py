"""The HDF5 file that PyTC reads, made of a finished volume: complete, or not there.

It says in its attributes what it was made from, and the checksum of its chunks as they are
stored, so that it can be believed without the array that it was copied from: people remove
that one to save space. PyTC takes whatever `raw_*.h5` it finds for a prediction.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from absl import logging
from isal import isal_zlib

from nisbjax.console.progress import Progress
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import files, hdf5_output, manifest
from nisbjax.store.volume import Reading, Volume

_MADE_FROM = "made_from"
_CHECKSUM = "stored_crc32"


def export_hdf5(
    volume: Volume,
    path: str | os.PathLike,
    *,
    dataset: str = "main",
    gzip: int = 4,
    chunks: tuple[int, ...] | None = None,
    made_from: Mapping[str, Any] | None = None,
    dtype: Any = None,
    boxes: Sequence[Box] | None = None,
    changed: Callable[[Box, np.ndarray], np.ndarray] | None = None,
) -> None:
    """Copies a finished volume into one HDF5 file, renamed into place when complete.

    Attributes become those of the dataset (containers as JSON text). Boxes of whole chunks
    are read one ahead of the writer, so memory stays at two boxes.

    Args:
      volume: any.
      path: of the new file.
      dataset: `main` is what PyTC reads.
      gzip: level; 4 as PyTC.
      chunks: of the file; those of the volume where None.
      made_from: what determines the content, for `is_whole`.
      dtype: of the file; that of the volume where None.
      boxes: read and written at once, whole chunks of the file; rows of them where None.
      changed: makes of the values of a box those that are written; needs `boxes`.
    """
    chunks = tuple(chunks or volume.chunks)
    with hdf5_output.creating(path) as file:
        target: Any = file.create_dataset(
            dataset,
            shape=volume.shape,
            dtype=dtype or volume.dtype,
            chunks=chunks,
            compression="gzip",
            compression_opts=gzip,
        )
        for key, value in volume.attributes.items():
            simple = isinstance(value, str | int | float | bool)
            target.attrs[key] = value if simple else json.dumps(value)
        places = _places(volume, chunks, boxes)
        with Progress(
            f"export to {os.path.basename(path)}", len(places), "boxes"
        ) as at:
            for index, values in _parts(volume, places, changed):
                target[index] = values
                file.check()
                at.update()
        if made_from is not None:
            file.flush()
            file.check()
            target.attrs[_CHECKSUM] = _checksum(target)
            target.attrs[_MADE_FROM] = json.dumps(dict(made_from), sort_keys=True)


def require_ours(
    path: str | os.PathLike,
    made_from: Mapping[str, Any] | None,
    advice: str,
    *,
    begun: bool,
) -> None:
    """Refuses to replace what somebody else wrote; writes nothing.

    Args:
      path: of the file that is to be written.
      made_from: what it is to be made from; None: whatever ours was made from.
      advice: what to do about one of ours that was made from something else.
      begun: whether a file of ours was written there, so that one without its facts is
        ours and damaged.

    Raises:
      InputError: another program's file, one of another run, or a folder or device.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return
    files.require_regular(path)
    found = _facts(path)
    if found is None or _MADE_FROM not in found:
        if found is None and begun:
            return
        what = "cannot be read as HDF5" if found is None else "says not that it is ours"
        raise InputError(f"{path} is in the way and {what}; remove it or name another")
    if made_from is not None:
        manifest.require_equal(path, _parsed(found[_MADE_FROM]), made_from, advice)


def made_from(path: str | os.PathLike) -> dict[str, Any]:
    """What an exported file says that it was made from; nothing where it says nothing."""
    path = pathlib.Path(path)
    found = _facts(path) if path.is_file() else None
    return _parsed(found.get(_MADE_FROM)) if found else {}


def is_whole(path: str | os.PathLike, made_from: Mapping[str, Any]) -> bool:
    """Whether an exported file is there, made from the same and without damage.

    All its chunks are read and compared with its checksum; the log says what is wrong.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return False
    found = _facts(path)
    try:
        if found is None:
            raise ValueError("it cannot be read as HDF5")
        manifest.require_equal(path, _parsed(found.get(_MADE_FROM)), made_from)
        with h5py.File(path, "r") as file:
            checksum = _checksum(file["main"])
        if checksum != found.get(_CHECKSUM):
            raise ValueError("its chunks have another checksum")
    except (InputError, OSError, RuntimeError, ValueError, KeyError) as error:
        logging.warning("%s is damaged (%s); it is written again", path, error)
        return False
    return True


def is_of(path: str | os.PathLike, made_from: Mapping[str, Any]) -> bool:
    """Whether an exported file says that it was made from the same; nothing else is read."""
    found = _facts(pathlib.Path(path))
    try:
        manifest.require_equal(path, _parsed((found or {}).get(_MADE_FROM)), made_from)
    except (InputError, ValueError):
        return False
    return True


def _facts(path: pathlib.Path) -> dict[str, Any] | None:
    """The attributes that this module writes; None where the file cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            attributes = file["main"].attrs if "main" in file else {}
            return {
                k: attributes[k] for k in (_MADE_FROM, _CHECKSUM) if k in attributes
            }
    except (OSError, RuntimeError, KeyError, ValueError):
        return None


def _parsed(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _checksum(found: Any) -> int:
    """CRC-32 of all chunks of a dataset as they are stored, in the order of their places.

    Raises:
      ValueError: some chunks are not there.
    """
    places: list[tuple[int, ...]] = []
    found.id.chunk_iter(lambda chunk: places.append(chunk.chunk_offset))
    wanted = math.prod(
        -(-s // c) for s, c in zip(found.shape, found.chunks, strict=True)
    )
    if len(places) != wanted:
        raise ValueError(f"it has {len(places)} chunks of {wanted}")
    checksum = 0
    for place in sorted(places):
        checksum = isal_zlib.crc32(found.id.read_direct_chunk(place)[1], checksum)
    return checksum


def _places(
    volume: Volume, chunks: tuple[int, ...], boxes: Sequence[Box] | None
) -> list[tuple[Box | None, tuple[slice, ...]]]:
    """The boxes that are copied one after another, and their indices."""
    if boxes is None:
        return [(None, index) for index in _chunk_rows(volume.shape, chunks)]
    return [(box, _index(volume, box)) for box in boxes]


def _parts(
    volume: Volume,
    places: Sequence[tuple[Box | None, tuple[slice, ...]]],
    changed: Callable[[Box, np.ndarray], np.ndarray] | None,
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Indices and their values; the next ones are on their way."""
    pending: tuple[Box | None, tuple[slice, ...], Reading] | None = None
    for place in [*places, None]:
        ahead = None
        if place is not None:
            ahead = (place[0], place[1], volume.start_read(place[1]))
        if pending is not None:
            box, index, reading = pending
            values = reading.result()
            if changed is not None and box is not None:
                values = changed(box, values)
            yield index, values
        pending = ahead


def _index(volume: Volume, box: Box) -> tuple[slice, ...]:
    by_axis = dict(zip("xyz", box.slices, strict=True))
    return tuple(
        by_axis.get(a, slice(0, n))
        for a, n in zip(volume.axes, volume.shape, strict=True)
    )


def _chunk_rows(
    shape: tuple[int, ...], chunks: tuple[int, ...]
) -> Iterator[tuple[slice, ...]]:
    """Index of every chunk, the last axis whole: long reads, aligned writes."""
    steps = (*chunks[:-1], shape[-1])
    for start in np.ndindex(*(-(-s // c) for s, c in zip(shape, steps, strict=True))):
        yield tuple(
            slice(i * c, min((i + 1) * c, s))
            for i, c, s in zip(start, steps, shape, strict=True)
        )
