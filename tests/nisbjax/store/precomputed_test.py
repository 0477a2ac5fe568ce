"""neuroglancer's precomputed volumes by their specification, written byte by byte."""

import gzip
import itertools
import json
import os
import pickle

import imagecodecs
import numpy as np
import pytest
from absl import logging

from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store import scales
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import open_image, open_labels, open_volume

# x y z: 5 columns, 9 rows, 7 planes, in chunks of 4.
SHAPE = (5, 9, 7)
VALUES = np.arange(5 * 9 * 7, dtype=np.uint16).reshape(SHAPE)
CHUNK = (4, 4, 4)
OFFSET = (100, -7, 3)


def raw(part):
    """[x y z c], x fastest."""
    return part.astype(part.dtype.newbyteorder("<")).tobytes(order="F")


def compressed_segmentation(part, block=8):
    """One channel, one block: a table of the values, and a number of bits for each voxel.

    Offsets are of 32-bit words: that of the channel, then in the channel of the block's
    table (24 bits, and 8 of how many bits a voxel has) and of its voxels.
    """
    values = part[..., 0]
    table, places = np.unique(values, return_inverse=True)
    bits = next(b for b in (0, 1, 2, 4, 8, 16, 32) if len(table) <= 1 << b)
    full = np.zeros((block,) * 3, np.uint64)
    full[tuple(slice(s) for s in values.shape)] = places.reshape(values.shape)
    stream = full.ravel(order="F")  # x fastest
    per_word = 32 // bits if bits else 0
    words = []
    for start in range(0, len(stream), per_word or len(stream) + 1) if bits else ():
        word = 0
        for i, value in enumerate(stream[start : start + per_word]):
            word |= int(value) << (bits * i)
        words.append(word)
    at_voxels, at_table = 2, 2 + len(words)
    header = [1, at_table | bits << 24, at_voxels]
    content = table.astype("<u4" if part.dtype == np.uint32 else "<u8").tobytes()
    return np.array(header + words, "<u4").tobytes() + content


def jpeg(part):
    """An image of x by y z."""
    flat = part[..., 0].transpose(2, 1, 0).reshape(-1, part.shape[0])
    return imagecodecs.jpeg_encode(np.ascontiguousarray(flat), level=100)


def png(part):
    flat = part[..., 0].transpose(2, 1, 0).reshape(-1, part.shape[0])
    return imagecodecs.png_encode(np.ascontiguousarray(flat))


ENCODERS = {
    "raw": raw,
    "compressed_segmentation": compressed_segmentation,
    "jpeg": jpeg,
    "png": png,
}


def scale_of(key, values, encoding="raw", resolution=(8, 9, 30), offset=OFFSET, **more):
    found = {
        "key": key,
        "size": list(values.shape[:3]),
        "resolution": list(resolution),
        "voxel_offset": list(offset),
        "chunk_sizes": [list(CHUNK)],
        "encoding": encoding,
    }
    if encoding == "compressed_segmentation":
        found["compressed_segmentation_block_size"] = [8, 8, 8]
    return {**found, **more}


def write_chunks(folder, values, encoding="raw", offset=OFFSET, ending=""):
    folder.mkdir(parents=True)
    values = values if values.ndim == 4 else values[..., None]
    grid = [range(-(-s // c)) for s, c in zip(values.shape, CHUNK, strict=False)]
    for at in itertools.product(*grid):
        ends = [
            (a * c, min(a * c + c, s))
            for a, c, s in zip(at, CHUNK, values.shape, strict=False)
        ]
        part = values[tuple(slice(*e) for e in ends)]
        name = "_".join(
            f"{a + o}-{b + o}" for (a, b), o in zip(ends, offset, strict=True)
        )
        content = ENCODERS[encoding](part)
        content = gzip.compress(content) if ending == ".gz" else content
        (folder / f"{name}{ending}").write_bytes(content)


def write(path, values=VALUES, encoding="raw", ending="", **more):
    """A volume of one scale, `8_9_30`."""
    write_chunks(path / "8_9_30", values, encoding, ending=ending)
    labels = encoding == "compressed_segmentation"
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if labels else "image",
        "data_type": str(values.dtype),
        "num_channels": values.shape[3] if values.ndim == 4 else 1,
        "scales": [scale_of("8_9_30", values, encoding, **more)],
    }
    (path / "info").write_text(json.dumps(info))
    return path


def edited(path, scale=None, **changes):
    found = json.loads((path / "info").read_text())
    found.update(changes)
    if scale:
        found["scales"][0].update(scale)
    (path / "info").write_text(json.dumps(found))
    return path


def refused(path, message, call=open_volume):
    with pytest.raises(InputError, match=message) as info:
        call(path)
    assert "\n" not in str(info.value)


def read(path):
    return open_volume(path, axes="xyz").read()


STORED = [
    ("raw", "uint8"),
    ("raw", "uint16"),
    ("raw", "float32"),
    ("raw", "uint64"),
    ("compressed_segmentation", "uint32"),
    ("compressed_segmentation", "uint64"),
    ("png", "uint8"),
    ("png", "uint16"),
]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("encoding, dtype", STORED)
def test_every_encoding(tmp_path, encoding, dtype, ending):
    """As it lies, and gzipped once more, as cloud-volume keeps it."""
    values = (VALUES % 251).astype(dtype)
    if dtype == "uint64":
        values = values << np.uint64(40)
    path = write(tmp_path / "a", values, encoding, ending)
    volume = open_volume(path, axes="xyz")
    assert (volume.dtype, volume.chunks) == (dtype, CHUNK)
    np.testing.assert_array_equal(volume.read(), values)
    np.testing.assert_array_equal(
        volume.read(np.s_[1:5, 3:8, 2:6]), values[1:5, 3:8, 2:6]
    )
    assert volume.attributes["voxel_size_nm"] == [8, 9, 30]
    assert volume.attributes["voxel_offset"] == list(OFFSET)
    store = pickle.loads(pickle.dumps(volume.store))
    np.testing.assert_array_equal(store.read().result(), values)


def test_jpeg_is_an_image_and_no_labels(tmp_path):
    values = np.full(SHAPE, 100, np.uint8)
    path = write(tmp_path / "a", values, "jpeg")
    np.testing.assert_allclose(open_image(path).read()[..., 0], values, atol=2)
    refused(path, "a/8_9_30 is encoded as JPEG, which changes the numbers", open_labels)


def test_channels_are_last(tmp_path):
    values = np.stack([VALUES, VALUES + 1], -1)
    path = write(tmp_path / "a", values)
    np.testing.assert_array_equal(open_image(path).read(), values)
    refused(path, "with 2 channels; wanted the axes x y z", open_labels)
    refused(f"{path}#zyx", "says that its axes|wanted")


def test_the_finest_scale_or_a_named_one(tmp_path, caplog):
    path = tmp_path / "a"
    coarse = VALUES[::2, ::2, ::2]
    write_chunks(path / "deep" / "fine", VALUES)
    write_chunks(path / "coarse", coarse, offset=(50, -3, 1))
    listed = [
        scale_of("coarse", coarse, resolution=(16, 18, 60), offset=(50, -3, 1)),
        scale_of("deep/fine", VALUES),
        scale_of("empty", VALUES, resolution=(32, 36, 120)),
    ]
    info = {"type": "image", "data_type": "uint16", "num_channels": 1}
    (path / "info").write_text(json.dumps({**info, "scales": listed}))
    logging.set_verbosity(logging.INFO)
    scales.say_finest.cache_clear()
    with caplog.at_level("INFO"):
        volume = open_labels(path)
    assert "deep/fine, the finest, is read" in caplog.text
    np.testing.assert_array_equal(volume.read(), VALUES)
    assert volume.source == str(path / "deep/fine")
    np.testing.assert_array_equal(open_labels(path / "coarse").read(), coarse)
    assert open_labels(path / "coarse").attributes["voxel_size_nm"] == [16, 18, 60]
    np.testing.assert_array_equal(open_labels(path / "deep/fine").read(), VALUES)
    assert not open_labels(path / "empty").read().any()  # nothing was written
    refused(path / "4_4_4", "a has no scale 4_4_4; it has coarse, deep/fine, empty")
    assert nisb.find(tmp_path, "a") == [str(path)]
    assert nisb.find(tmp_path, "*/coarse") == [str(path / "coarse")]
    prints = {fingerprint(path / name) for name in ("coarse", "deep/fine", "empty")}
    assert len(prints) == 3
    assert fingerprint(path) in prints


@pytest.mark.parametrize(
    "scale, changes, message",
    [
        ({"encoding": "compresso"}, {}, "has the encoding 'compresso'; wanted raw, "),
        ({"size": [5, 9]}, {}, r"info: scales\[0\].size is \[5, 9\]; wanted a list"),
        ({"size": [1 << 40] * 3}, {}, "claims the shape"),
        ({"chunk_sizes": [[1 << 20] * 3]}, {}, "claims chunks of"),
        ({"chunk_sizes": []}, {}, "a scale has no chunk_sizes"),
        ({"resolution": [8, 9, 0]}, {}, "resolution.* is 0; wanted a finite number"),
        ({"voxel_offset": "no"}, {}, "voxel_offset is 'no'; wanted a list"),
        ({}, {"data_type": "text"}, "holds text; wanted numbers"),
        (
            {},
            {"num_channels": 0},
            "num_channels is 0; wanted a whole number, 1 or more",
        ),
        ({}, {"scales": []}, "lists no scale; wanted one or more"),
        (
            {"sharding": {"shard_bits": 1, "minishard_bits": 60}},
            {},
            "minishard_bits is 60; wanted a whole number, 0 to 24",
        ),
        (
            {"sharding": {"shard_bits": 1, "minishard_bits": 1}},
            {},
            "cannot be read as a precomputed volume",
        ),
    ],
)
def test_metadata_that_cannot_be(tmp_path, scale, changes, message):
    refused(edited(write(tmp_path / "a"), scale, **changes), message)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damaged_chunks(tmp_path, ending):
    path = write(tmp_path / "a", ending=ending)
    name = f"100-104_-3-1_3-7{ending}"
    chunk = path / "8_9_30" / name
    content = chunk.read_bytes()
    bad = [content[:-3], content[:5], b"not a chunk"]
    bad += [content + content, gzip.compress(b"short")] if ending else []
    for damaged in bad:
        chunk.write_bytes(damaged)
        refused(path, f"is damaged: .*{name}.* cannot be read", read)


def test_chunks_that_are_compressed_otherwise(tmp_path):
    path = write(tmp_path / "a")
    chunk = path / "8_9_30" / "100-104_-3-1_3-7"
    os.rename(chunk, f"{chunk}.br")
    refused(path, "holds chunks as 100-104_-3-1_3-7.br; wanted them plain or as .gz")
    os.rename(f"{chunk}.br", f"{chunk}.gz")
    refused(path, "holds 11 chunks as they are and 1 as .gz; wanted one or the other")


def test_a_fingerprint_sees_chunks_and_metadata(tmp_path):
    path = write(tmp_path / "a")
    seen = {fingerprint(path)}
    chunk = path / "8_9_30" / "100-104_-3-1_3-7"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    seen.add(fingerprint(path))
    edited(path, {"resolution": [8, 9, 31]})
    seen.add(fingerprint(path))
    assert len(seen) == 3


def test_another_program_s_info_is_none(tmp_path):
    (tmp_path / "info").write_text("notes")
    refused(tmp_path, "is a folder without a zarr array")
