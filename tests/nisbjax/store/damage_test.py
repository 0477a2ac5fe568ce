"""A damaged chunk of any format and codec is one line that names the file and the chunk.

Each case writes values whose chunks hold different data, damages one chunk in one way, and
reads first a sound part, which must be right, then the damaged one.
"""

import pathlib

import h5py
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr

from nisbjax.errors import InputError
from nisbjax.store.volume import open_volume

SHAPE, CHUNKS = (8, 8, 8), (4, 8, 8)
# Of few values, so that every codec makes a chunk smaller.
VALUES = (np.random.default_rng(0).integers(1, 5, SHAPE) * 200).astype(np.uint16)


def junk(data):
    return b"junk"


def cut(data):
    return data[: len(data) // 2]


def nothing(data):
    return b""


def zeros(data):
    return data[:3] + bytes(len(data) - 3)


CODECS = {
    "raw": None,
    "zstd": numcodecs.Zstd(),
    "blosc": numcodecs.Blosc("lz4"),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
}


def refused(path, part):
    volume = open_volume(path)
    index = (slice(0, 4), slice(None), slice(None))
    np.testing.assert_array_equal(volume.read(index), VALUES[index])
    with pytest.raises(InputError) as info:
        volume.read()
    text = str(info.value)
    assert str(path) in text and part in text and "is damaged" in text, text
    assert text.endswith("; copy or write it again") and "\n" not in text
    assert "tensorstore" not in text.lower()


@pytest.mark.parametrize("damage", [junk, cut, nothing, zeros])
@pytest.mark.parametrize("codec", CODECS)
def test_zarr_v2(tmp_path, codec, damage):
    if (codec, damage) == ("raw", zeros):
        pytest.skip("zeros are values like others where nothing is compressed")
    path = tmp_path / "a.zarr"
    options = {"chunks": CHUNKS, "zarr_format": 2, "compressors": CODECS[codec]}
    zarr.create_array(str(path), data=VALUES, **options)
    chunk = path / "1.0.0"
    chunk.write_bytes(damage(chunk.read_bytes()))
    refused(path, "its chunk 1.0.0 cannot be read")


@pytest.mark.parametrize("codec", [c for c in CODECS if c != "raw"])
@pytest.mark.parametrize("length", [511, 513, 5120])
def test_zarr_chunks_that_inflate_to_another_size(tmp_path, codec, length):
    path = tmp_path / "a.zarr"
    options = {"chunks": CHUNKS, "zarr_format": 2, "compressors": CODECS[codec]}
    zarr.create_array(str(path), data=VALUES, **options)
    (path / "1.0.0").write_bytes(CODECS[codec].encode(bytes(length)))
    refused(path, "its chunk 1.0.0 cannot be read")


@pytest.mark.parametrize("damage", [junk, cut, nothing, zeros])
@pytest.mark.parametrize("shards", [None, SHAPE])
@pytest.mark.parametrize("compressors", ["auto", None, zarr.codecs.GzipCodec()])
def test_zarr_v3(tmp_path, compressors, shards, damage):
    if (compressors, damage) == (None, zeros) and not shards:
        pytest.skip("zeros are values like others where nothing is compressed")
    path = tmp_path / "a.zarr"
    options = {"chunks": CHUNKS, "shards": shards, "compressors": compressors}
    zarr.create_array(str(path), data=VALUES, zarr_format=3, **options)
    if not shards:
        chunk = path / "c/1/0/0"
        chunk.write_bytes(damage(chunk.read_bytes()))
        refused(path, "its chunk c/1/0/0 cannot be read")
        return
    shard = path / "c/0/0/0"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(InputError, match="its chunk c/0/0/0 cannot be read"):
        open_volume(path).read()


STORED = {
    "gzip": {"compression": "gzip"},
    "shuffled gzip": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "shuffled lzf": {"compression": "lzf", "shuffle": True},
    "fletcher32": {"fletcher32": True},
    "gzip and fletcher32": {"compression": "gzip", "fletcher32": True},
    "lzf and fletcher32": {"compression": "lzf", "fletcher32": True},
}


def hdf5(path, options):
    with h5py.File(path, "w") as file:
        file.create_dataset("main", data=VALUES, chunks=CHUNKS, **options)
    return path


@pytest.mark.parametrize("stored", STORED)
def test_hdf5_bytes_of_a_chunk(tmp_path, stored):
    path = hdf5(tmp_path / "a.h5", STORED[stored])
    with h5py.File(path) as file:
        info = file["main"].id.get_chunk_info_by_coord((4, 0, 0))
    data = bytearray(path.read_bytes())
    at = info.byte_offset
    data[at + 3 : at + info.size] = bytes(info.size - 3)
    path.write_bytes(data)
    refused(path, "its chunk at (4, 0, 0) cannot be read")


@pytest.mark.parametrize("length", ["half", "one", "more"])
@pytest.mark.parametrize("stored", STORED)
def test_hdf5_chunks_of_another_length(tmp_path, stored, length):
    """LZF in h5py takes a chunk that was cut for whole."""
    path = hdf5(tmp_path / "a.h5", STORED[stored])
    with h5py.File(path, "a") as file:
        mask, data = file["main"].id.read_direct_chunk((4, 0, 0))
        assert not mask  # no filter was passed by
        half = data[: len(data) // 2]
        changed = {"half": half, "one": data[:1], "more": data + data}
        file["main"].id.write_direct_chunk((4, 0, 0), changed[length], mask)
    if length == "more" and stored in ("gzip", "shuffled gzip"):
        # Nobody looks behind the end of a gzip stream.
        np.testing.assert_array_equal(open_volume(path).read(), VALUES)
        return
    refused(path, "its chunk at (4, 0, 0) cannot be read")


def test_hdf5_filters_that_hdf5_undoes(tmp_path):
    path = tmp_path / "a.h5"
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(CHUNKS)
    creation.set_scaleoffset(h5py.h5z.SO_INT, 0)  # which h5py itself undoes
    creation.set_fletcher32()
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file.id, b"main", h5py.h5t.NATIVE_UINT16, space, creation)
        file["main"][...] = VALUES
        info = file["main"].id.get_chunk_info_by_coord((4, 0, 0))
    data = bytearray(path.read_bytes())
    data[info.byte_offset + 30] ^= 255
    path.write_bytes(data)
    refused(path, "/main in 4:8,0:8,0:8 cannot be read")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits", "lzma"])
def test_tiff_planes(tmp_path, compression):
    path = tmp_path / "a.tif"
    turned = np.ascontiguousarray(VALUES.T)
    options = {"photometric": "minisblack", "rowsperstrip": 4}
    tifffile.imwrite(path, turned, compression=compression, **options)
    sound = path.read_bytes()
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    with tifffile.TiffFile(path) as file:
        page = file.pages[5]
        at, count = page.dataoffsets[1], page.databytecounts[1]
    # A stream of zeros is one of LZW.
    for i, changed in enumerate(
        (b"\xff" * count, bytes(count))[: 1 + (compression != "lzw")]
    ):
        data = sound[:at] + changed + sound[at + count :]
        damaged = tmp_path / f"{i}.tif"
        damaged.write_bytes(data)
        volume = open_volume(damaged)
        np.testing.assert_array_equal(volume.read(np.s_[..., :5]), VALUES[..., :5])
        with pytest.raises(
            InputError, match=r"\d.tif is damaged: its plane 5 cannot be read \("
        ):
            volume.read()


def overwrite(path: pathlib.Path, tag: str, value, page=5):
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[page].tags[tag].overwrite(value)


def test_tiff_strips_that_are_not_there(tmp_path):
    path = tmp_path / "a.tif"
    turned = np.ascontiguousarray(VALUES.T)
    options = {"photometric": "minisblack", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for plane in turned:
            file.write(plane, **options)
    sound = path.read_bytes()
    overwrite(path, "StripByteCounts", 0)
    with pytest.raises(
        InputError, match=r"its plane 5 .* \(parts of it were never wri"
    ):
        open_volume(path).read()
    path = tmp_path / "b.tif"
    path.write_bytes(sound)
    overwrite(path, "StripOffsets", len(sound) - 3)
    with pytest.raises(InputError, match=r"its plane 5 cannot .* \(the file was cut\)"):
        open_volume(path).read()


def test_a_file_that_shrinks_while_it_is_open(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES.T, photometric="minisblack")
    volume = open_volume(path)
    with tifffile.TiffFile(path) as file:
        offset = file.series[0].dataoffset
    with open(path, "r+b") as file:
        file.truncate(offset + 7 * 8 * 8 * 2 + 10)  # of its last plane, ten bytes
    with pytest.raises(InputError, match="plane 7 cannot be read"):
        volume.read((slice(None), slice(None), 7))


@pytest.mark.parametrize("suffix", [".h5", ".npy", ".tif"])
def test_a_file_that_is_gone_before_it_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".h5":
        hdf5(path, {})
    elif suffix == ".npy":
        np.save(path, VALUES)
    else:
        tifffile.imwrite(path, VALUES, photometric="minisblack")
    volume = open_volume(path)
    path.unlink()
    if suffix == ".tif":  # held open, and so still there
        assert volume.read().size == VALUES.size
        return
    with pytest.raises(InputError, match="cannot be read"):
        volume.read()
