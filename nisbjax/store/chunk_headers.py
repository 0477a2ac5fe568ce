"""What a zarr chunk says of its own length, compared before it is inflated.

For arrays without a manifest, of which nobody knows what a chunk file held. TensorStore
inflates most codecs no further than a chunk's shape, but blosc's as far as the header of 16
bytes claims (2 GB), and of zarr v3 it leaves unread what stands behind a chunk's last byte.
zarr and PyTC believe both.
"""

import math
import os
import stat
from typing import Any

import numpy as np
import tensorstore as ts

from nisbjax.store.stored import ChunkFiles, specification
from nisbjax.store.views import damage

_MOST_CHUNKS = 1 << 28  # a byte for each is kept
_ZSTD = b"\x28\xb5\x2f\xfd"
_NO_DATA = ("transpose", "bytes")  # codecs of v3 that change no length


def guard(store: ts.TensorStore) -> "ChunkHeaders | None":
    """What compares an array's chunks; None where its codec says nothing of a length."""
    files, codec = ChunkFiles.of(store), _codec(specification(store))
    if files is None:
        files = ChunkFiles.of_v3(store)
    elif codec != "blosc":
        return None  # TensorStore compares all others of v2
    if files is None or codec not in _CHECKS or math.prod(files.grid) > _MOST_CHUNKS:
        return None
    size = math.prod(files.chunks) * store.dtype.numpy_dtype.itemsize
    return ChunkHeaders(files, codec, size)


class ChunkHeaders:
    """Compares the chunks of one array, each before its first reading.

    Args:
      files: of the array.
      codec: of its chunks.
      size: bytes of a chunk's voxels.
    """

    def __init__(self, files: ChunkFiles, codec: str, size: int):
        self._arguments = files, codec, size
        self._files, self._size = files, size
        self._check = _CHECKS[codec]
        self._seen = np.zeros(files.grid, bool)

    def __reduce__(self):
        return ChunkHeaders, self._arguments

    def before(self, part: ts.TensorStore) -> None:
        """Compares the chunks that a part of the array takes voxels from.

        Raises:
          InputError: one claims another length than its shape has, or holds more than that.
        """
        axes = self._files.touched(part)
        for at in np.argwhere(~self._seen[np.ix_(*axes)]):
            index = tuple(int(a[i]) for a, i in zip(axes, at, strict=True))
            self._compare(self._files.name(index))
            self._seen[index] = True

    def check(self, part: ts.TensorStore) -> None:
        """Nothing is left to compare once a part is read."""

    def _compare(self, name: str) -> None:
        try:
            file = os.open(self._files.folder / name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:  # never written, or TensorStore says what is wrong with it
            return
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise damage(self._files.folder, f"its chunk {name}", "it is no file")
            problem = self._check(file, status.st_size, self._size)
        finally:
            os.close(file)
        if problem:
            raise damage(self._files.folder, f"its chunk {name}", problem)


def _codec(spec: dict[str, Any]) -> str:
    """The one compressor or checksum of an array; "" for none or several."""
    metadata = spec.get("metadata", {})
    if spec.get("driver") == "zarr":
        if metadata.get("filters"):
            return ""
        return (metadata.get("compressor") or {}).get("id", "")
    names = [codec["name"] for codec in metadata.get("codecs", ())]
    names = [name for name in names if name not in _NO_DATA]
    return names[0] if len(names) == 1 else ""


def _blosc(file: int, length: int, size: int) -> str:
    del length
    claimed = int.from_bytes(os.pread(file, 4, 4), "little")
    return f"it claims {claimed} bytes and should hold {size}" * (claimed != size)


def _crc32c(file: int, length: int, size: int) -> str:
    del file
    return f"it has {length} bytes, not {size + 4}" * (length != size + 4)


def _gzip(file: int, length: int, size: int) -> str:
    """A stream of gzip ends in the length of what it inflates to, modulo 2^32."""
    end = os.pread(file, 4, max(length - 4, 0))
    right = int.from_bytes(end, "little") == size % (1 << 32)
    return "" if right else f"it does not end as a gzip stream of {size} bytes does"


def _zstd(file: int, length: int, size: int) -> str:
    """Blocks of a frame say how long they are (RFC 8878, section 3.1)."""
    del size
    data = os.pread(file, length, 0)
    if data[:4] != _ZSTD or len(data) < 6:
        return ""  # TensorStore says so
    descriptor = data[4]
    single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    content = (single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content
    last = False
    while not last and at + 3 <= len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind = bool(header & 1), header >> 1 & 3
        at += 3 + (1 if kind == 1 else header >> 3)  # one byte that is repeated
    at += 4 * checksum
    return f"{length - at} bytes stand behind its end" if last and at < length else ""


_CHECKS = {"blosc": _blosc, "crc32c": _crc32c, "gzip": _gzip, "zstd": _zstd}
