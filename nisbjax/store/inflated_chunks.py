"""Chunks of precomputed volumes that were compressed once more, as cloud-volume writes them.

On a web server such files are sent as `Content-Encoding: gzip` and nobody sees it; on a disk
cloud-volume keeps them as `1-65_1-65_1-65.gz`, which TensorStore does not look for: the
whole volume would read as zeros. They are inflated here, one by one.
"""

import functools
import itertools
import json
import os
import pathlib
import zlib
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.errors import InputError
from nisbjax.store import files
from nisbjax.store.views import damage, view, words

_LOOKED_AT = 1 << 16  # entries of a folder
_OTHERS = (".br", ".zstd", ".zst", ".xz", ".bz2")
_MOST_INFLATED = 2  # times a chunk's raw bytes; compressed_segmentation may take more
_ROOM = 1 << 20


def are_there(folder: pathlib.Path) -> bool:
    """Whether a scale's chunks are gzip files.

    Raises:
      InputError: compressed otherwise, or some are and others are not.
    """
    plain = gzipped = 0
    try:
        with os.scandir(folder) as entries:
            for entry in itertools.islice(entries, _LOOKED_AT):
                if entry.name.startswith("."):
                    continue
                ending = os.path.splitext(entry.name)[1]
                if ending in _OTHERS:
                    raise InputError(
                        f"{folder} holds chunks as {entry.name}; wanted them plain or "
                        "as .gz; write them again, with compress=False in cloud-volume"
                    )
                gzipped += ending == ".gz"
                plain += ending == ""
    except FileNotFoundError:  # nothing was ever written
        return False
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    if plain and gzipped:
        raise InputError(
            f"{folder} holds {plain} chunks as they are and {gzipped} as .gz; wanted one "
            "or the other, for nobody knows which are newer"
        )
    return gzipped > 0


def view_of(
    root: pathlib.Path,
    folder: pathlib.Path,
    info: dict[str, Any],
    scale: dict[str, Any],
) -> ts.TensorStore:
    """The scale as a TensorStore [x y z c] that counts from 0.

    Args:
      root: of the volume, for messages.
      folder: of the scale's chunks.
      info: of the volume, as it was checked.
      scale: of `info`.
    """
    kept = json.dumps(
        {
            "type": info.get("type", "image"),
            "data_type": info["data_type"],
            "num_channels": info["num_channels"],
            "scales": [{**scale, "key": "chunks"}],
        }
    )
    chunk = (*scale["chunk_sizes"][0], info["num_channels"])
    shape = (*scale["size"], info["num_channels"])
    dtype = np.dtype(info["data_type"])
    chunk = tuple(min(c, max(s, 1)) for c, s in zip(chunk, shape, strict=True))
    reader = functools.partial(_read, str(root), str(folder.absolute()), kept)
    return view(reader, shape, dtype, chunk, own_threads=True)


def _read(
    root: str, folder: str, kept: str, domain: Any, chunk: np.ndarray, _: Any
) -> None:
    """One chunk file, decoded by TensorStore from memory."""
    scale = json.loads(kept)["scales"][0]
    offset = scale.get("voxel_offset", [0, 0, 0])
    edges, size = scale["chunk_sizes"][0], scale["size"]
    index = domain.index_exp
    first = [i.start // e * e for i, e in zip(index, edges, strict=False)]
    ends = [min(f + e, s) for f, e, s in zip(first, edges, size, strict=True)]
    name = "_".join(
        f"{f + o}-{e + o}" for f, e, o in zip(first, ends, offset, strict=True)
    )
    content = _inflated(root, os.path.join(folder, f"{name}.gz"), chunk.nbytes)
    if content is None:
        chunk[...] = 0
        return
    memory = ts.Context()
    store = ts.KvStore.open("memory://", context=memory).result()
    store.write("info", kept.encode()).result()
    store.write(f"chunks/{name}", content).result()
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": "memory://",
        "scale_metadata": {"key": "chunks"},
    }
    try:
        opened = ts.open(spec, context=memory, read=True).result()
        part = opened[ts.d[:].translate_to[0]][index]
        chunk[...] = part.read().result()
    except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
        raise damage(root, f"its chunk {name}.gz", words(error)) from None


def _inflated(root: str, path: str, size: int) -> bytes | None:
    """What a gzip file of a volume holds; None where there is none.

    Raises:
      InputError: no gzip, cut, or far more than a chunk has.
    """
    if not os.path.lexists(path):
        return None
    most = _MOST_INFLATED * size + _ROOM
    packed = files.read_bytes(path, most)
    part = f"its chunk {os.path.basename(path)}"
    inflate = zlib.decompressobj(wbits=31)
    try:
        content = inflate.decompress(packed, most)
    except zlib.error as error:
        raise damage(root, part, error) from None
    if not inflate.eof or inflate.unused_data:
        problem = "it ends early, or holds more than a chunk has"
        raise damage(root, part, problem)
    return content
