"""Chunks of arrays without a manifest that hold, or claim, another length than they should."""

import pathlib
import pickle
import struct

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from nisbjax.errors import InputError
from nisbjax.store.volume import open_volume

VALUES = (np.random.default_rng(0).integers(1, 5, (8, 8, 8)) * 200).astype(np.uint16)
V3 = {
    "raw": None,
    "blosc": BloscCodec(),
    "crc32c": Crc32cCodec(),
    "gzip": GzipCodec(),
    "zstd": ZstdCodec(),
    "zstd with a checksum": ZstdCodec(checksum=True),
}
V2 = {
    "raw": None,
    "blosc": numcodecs.Blosc("lz4"),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
    "zstd": numcodecs.Zstd(),
}
CASES = [(3, name) for name in V3] + [(2, name) for name in V2]


def array(path, version, name):
    """Of two chunks of 4 x 8 x 8 voxels, 512 bytes each; the second one's file."""
    zarr.create_array(
        path,
        data=VALUES,
        chunks=(4, 8, 8),
        zarr_format=version,
        compressors=(V2 if version == 2 else V3)[name],
    )
    return pathlib.Path(path) / ("1.0.0" if version == 2 else "c/1/0/0")


@pytest.mark.parametrize(("version", "name"), CASES)
@pytest.mark.parametrize("more", [b"junk!", None])
def test_what_stands_behind_a_chunk_is_refused(tmp_path, version, name, more):
    """None: the chunk once more. The chunk before it is read as it is."""
    chunk = array(tmp_path / "a.zarr", version, name)
    volume = open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.read(), VALUES)
    content = chunk.read_bytes()
    chunk.write_bytes(content + (content if more is None else more))
    volume = open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.read(np.s_[:4]), VALUES[:4])
    if (version, name, more) == (3, "gzip", None):  # ends as one of that length does
        np.testing.assert_array_equal(volume.read(), VALUES)
        return
    with pytest.raises(
        InputError, match="a.zarr is damaged: its chunk .*1.0.0 cannot be"
    ):
        volume.read()


@pytest.mark.parametrize("version", [2, 3])
def test_a_length_that_blosc_claims_is_compared_before_it_is_allocated(
    tmp_path, version
):
    chunk = array(tmp_path / "a.zarr", version, "blosc")
    header = bytearray(chunk.read_bytes())
    header[4:8] = struct.pack("<I", 2**31 - 100)
    chunk.write_bytes(header)
    volume = open_volume(tmp_path / "a.zarr")
    with pytest.raises(
        InputError, match="it claims 2147483548 bytes and should hold 512"
    ):
        volume.read(np.s_[4:, :2])


def test_a_guard_travels_to_workers(tmp_path):
    array(tmp_path / "a.zarr", 3, "zstd")
    volume = open_volume(tmp_path / "a.zarr")
    guard = pickle.loads(pickle.dumps(volume.guard))
    guard.before(volume.store[4:])
