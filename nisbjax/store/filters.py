"""HDF5's filters undone one by one, with the length of every chunk compared.

A chunk is inflated by ISA-L or unpacked by a compiled loop outside h5py's lock; h5py (and
so PyTC) undoes chunks one at a time, and takes an LZF chunk that was cut for whole, with
whatever was in memory in place of the rest.
"""

import importlib
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError

from nisbjax.errors import InputError

_SHUFFLE, _DEFLATE = h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE
_FLETCHER32, _LZF = h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF
OWN = {_SHUFFLE, _DEFLATE, _FLETCHER32, _LZF}
# As registered with the HDF Group.
_NAMES = {
    4: "szip",
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32024: "sz3",
    32026: "blosc2",
}
Pipeline = tuple[tuple[int, tuple[int, ...]], ...]


def pipeline(source: h5py.Dataset) -> Pipeline:
    """Codes and parameters of a dataset's filters, in the order in which they were applied."""
    creation = source.id.get_create_plist()
    found = (creation.get_filter(i) for i in range(creation.get_nfilters()))
    return tuple((code, tuple(values)) for code, _, values, _ in found)


def require_known(source: Any, filters: Pipeline) -> None:
    """Makes every filter of a pipeline available.

    Raises:
      InputError: a filter that neither we nor HDF5 nor `hdf5plugin` have here, by name.
    """
    for code, _ in filters:
        if code in OWN or h5py.h5z.filter_avail(code):
            continue
        try:
            importlib.import_module("hdf5plugin")  # which registers its filters
        except ImportError:
            hint = "install it with `pip install hdf5plugin`, or write the file again"
        else:
            hint = "hdf5plugin does not have it; write the file again"
        if not h5py.h5z.filter_avail(code):
            name = _NAMES.get(code, "of that number")
            raise InputError(
                f"{source} is compressed with HDF5's filter {code} ({name}), which is not "
                f"here; {hint} with gzip"
            )


def undo(data: bytes, filters: Pipeline, skipped: int, size: int) -> tuple[Any, str]:
    """The bytes of one chunk, or what is wrong with it.

    Args:
      data: as stored.
      filters: all of them in `OWN`.
      skipped: a bit for each filter that the chunk went past.
      size: bytes of a chunk.

    Returns:
      The bytes, and "" or the problem.
    """
    for i in reversed(range(len(filters))):
        code, values = filters[i]
        if skipped >> i & 1:
            continue
        data, problem = _UNDO[code](data, values, size)
        if problem:
            return b"", problem
    if len(data) != size:
        return b"", f"it holds {len(data)} bytes and should hold {size}"
    return data, ""


def _inflate(data: Any, values: tuple, size: int) -> tuple[bytes, str]:
    """ISA-L's error becomes text here: it cannot travel by pickle."""
    del values
    # Room for a second filter inside, whose output may be a little longer than a chunk.
    most = 2 * size + 4096
    stream = isal_zlib.decompressobj()
    try:
        inflated = stream.decompress(data, most)
    except IsalError as error:  # pyright: ignore (the stub makes it no class)
        return b"", f"gzip cannot inflate it: {error}"
    if not stream.eof:
        return b"", "its gzip stream has no end, or inflates to more than a chunk"
    return inflated, ""


def _unshuffle(data: Any, values: tuple, size: int) -> tuple[Any, str]:
    del size
    width = max(values[0], 1) if values else 1
    whole = len(data) // width * width
    turned = np.frombuffer(data, np.uint8, whole).reshape(width, -1).T
    # Bytes beyond the last whole element stay where they are.
    return turned.tobytes() + bytes(data[whole:]), ""


def _check_sum(data: Any, values: tuple, size: int) -> tuple[bytes, str]:
    del values, size
    if len(data) < 4:
        return b"", "it is too short for its checksum"
    body, stored = data[:-4], int.from_bytes(data[-4:], "little")
    halves = stored & 0xFFFF, stored >> 16
    # HDF5 before 1.6.3 wrote it with the bytes of each half exchanged.
    turned = tuple((half & 0xFF) << 8 | half >> 8 for half in halves)
    sums = fletcher32(body)
    if sums not in [tuple(h % 65535 for h in pair) for pair in (halves, turned)]:
        return b"", "its checksum (fletcher32) is another"
    return body, ""


def fletcher32(data: bytes) -> tuple[int, int]:
    """HDF5's checksum modulo 65535: the sum of 16-bit words, and the sum of those sums."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    words = np.frombuffer(data, ">u2")
    low = high = 0
    step = 1 << 16  # sums of 2^16 words weighted by up to 2^16 stay below 2^63
    for start in range(0, len(words), step):
        part = words[start : start + step].astype(np.int64)
        weights = np.arange(len(part), 0, -1)
        high = (high + low * len(part) + int(part @ weights)) % 65535
        low = (low + int(part.sum())) % 65535
    return low, high


def _unpack_lzf(data: Any, values: tuple, size: int) -> tuple[Any, str]:
    del values
    # At the first such file: loading numba takes half a second.
    from nisbjax.store.lzf import unpack

    out = np.empty(size, np.uint8)
    length = unpack(np.frombuffer(data, np.uint8), out)
    if length < 0:
        return b"", "LZF cannot unpack it"
    return out[:length].data, ""


_UNDO = {
    _DEFLATE: _inflate,
    _SHUFFLE: _unshuffle,
    _FLETCHER32: _check_sum,
    _LZF: _unpack_lzf,
}
