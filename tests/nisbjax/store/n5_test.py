"""N5 by its specification: blocks written byte by byte, and the words of its programs."""

import gzip
import itertools
import json
import struct

import numpy as np
import pytest

from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import open_affinities, open_image, open_labels, open_volume

# x y z: 5 columns, 6 rows, 7 planes.
VALUES = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
BLOCK = (2, 3, 4)


def write(path, values=VALUES, compression="gzip", **words):
    """Big-endian, x fastest, a header of mode, rank and the block's own shape."""
    block = (*BLOCK, *(1,) * (values.ndim - 3))
    path.mkdir(parents=True)
    attributes = {
        "dimensions": list(values.shape),
        "blockSize": list(block),
        "dataType": str(values.dtype),
        "compression": {"type": compression},
        **words,
    }
    (path / "attributes.json").write_text(json.dumps(attributes))
    grid = [range(-(-s // b)) for s, b in zip(values.shape, block, strict=True)]
    for at in itertools.product(*grid):
        index = tuple(slice(a * b, a * b + b) for a, b in zip(at, block, strict=True))
        part = values[index]
        header = struct.pack(f">HH{values.ndim}I", 0, values.ndim, *part.shape)
        content = part.astype(values.dtype.newbyteorder(">")).tobytes(order="F")
        content = gzip.compress(content) if compression == "gzip" else content
        file = path.joinpath(*map(str, at))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(header + content)
    return path


def refused(path, message, call=open_volume):
    with pytest.raises(InputError, match=message) as info:
        call(path)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("compression", ["raw", "gzip"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint64", "float32"])
def test_x_is_first_and_fastest(tmp_path, dtype, compression):
    values = VALUES.astype(dtype)
    volume = open_volume(write(tmp_path / "a.n5", values, compression))
    assert (volume.axes, volume.dtype, volume.chunks) == ("xyz", dtype, BLOCK)
    np.testing.assert_array_equal(volume.read(), values)
    np.testing.assert_array_equal(
        volume.read(np.s_[1:4, 2:, 3:5]), values[1:4, 2:, 3:5]
    )


def test_channels_are_last_without_a_word(tmp_path):
    values = np.stack([VALUES, VALUES + 1], -1)
    np.testing.assert_array_equal(
        open_image(write(tmp_path / "a", values)).read(), values
    )
    values = values.astype(np.float32)
    path = write(tmp_path / "b", values)
    np.testing.assert_array_equal(
        open_affinities(path).read(), np.moveaxis(values, -1, 0)
    )


@pytest.mark.parametrize(
    "words",
    [
        {"axes": ["z", "y", "x"]},  # in the order of dimensions
        {"transform": {"axes": ["x", "y", "z"]}},  # COSEM's, in numpy's order
        {"transform": {"axes": ["z", "y", "x"], "ordering": "F"}},
        {"_ARRAY_DIMENSIONS": ["x", "y", "z"]},
    ],
)
def test_words_for_axes(tmp_path, words):
    path = write(tmp_path / "a", **words)
    np.testing.assert_array_equal(open_labels(path).read(), VALUES.T)
    assert open_volume(path).stored_axes == "zyx"
    refused(f"{path}#xyz", "says that its axes are z y x, and x y z was said of it")


@pytest.mark.parametrize("transform", [[[1, 0], [0, 1]], [1, 0, 0], "affine", {"a": 1}])
def test_a_transform_that_is_a_matrix_names_no_axes(tmp_path, transform):
    """Channels are last by custom, as without it."""
    values = np.stack([VALUES, VALUES + 1], -1)
    path = write(tmp_path / "a", values, transform=transform)
    assert open_image(path).shape == (5, 6, 7, 2)
    np.testing.assert_array_equal(open_image(path).read(), values)


def test_an_order_said_behind_the_path(tmp_path):
    path = write(tmp_path / "a")
    np.testing.assert_array_equal(open_labels(f"{path}#zyx").read(), VALUES.T)


NM = ["nm"] * 3


@pytest.mark.parametrize(
    "words",
    [
        {"transform": {"axes": ["z", "y", "x"], "scale": [30, 9, 8], "units": NM}},
        {
            "transform": {
                "ordering": "F",
                "axes": ["x", "y", "z"],
                "scale": [8, 9, 30],
                "units": NM,
            }
        },
        {"axes": ["x", "y", "z"], "resolution": [8, 9, 30], "units": NM},
        {"resolution": [0.008, 0.009, 0.03], "units": ["um"] * 3},
        {"pixelResolution": {"dimensions": [8, 9, 30], "unit": "nm"}},
    ],
)
def test_voxel_sizes(tmp_path, words):
    volume = open_volume(write(tmp_path / "a", **words))
    assert volume.attributes["voxel_size_nm"] == [8, 9, 30]
    np.testing.assert_array_equal(volume.read(), VALUES)


def test_a_group_of_scales_is_its_first(tmp_path):
    path = tmp_path / "a.n5"
    write(path / "em" / "s0")
    write(path / "em" / "s1", VALUES[::2, ::2], downsamplingFactors=[2, 2, 1])
    said = {"pixelResolution": {"dimensions": [8, 9, 30], "unit": "nm"}}
    (path / "em" / "attributes.json").write_text(json.dumps(said))
    (path / "attributes.json").write_text('{"n5": "2.5.1"}')
    volume = open_volume(path / "em")
    assert volume.source == str(path / "em" / "s0")
    assert volume.attributes["voxel_size_nm"] == [8, 9, 30]
    np.testing.assert_array_equal(volume.read(), VALUES)
    assert open_volume(path / "em" / "s1").attributes["voxel_size_nm"] == [16, 18, 30]
    refused(path, "is an N5 group; name an array inside it; it holds no array")
    refused(path / "em" / "s2", "no volume at .*s2")
    write(path / "raw")
    refused(path, "is an N5 group; name an array inside it; it holds raw")
    assert nisb.find(tmp_path, "*.n5/em") == [str(path / "em")]


def edited(path, **changes):
    file = path / "attributes.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dimensions": [5, 6]}, "claims 2 axes in chunks of 3"),
        ({"dimensions": [5, 6, -7]}, "claims shape"),
        ({"dimensions": [1 << 40] * 3}, "claims the shape"),
        ({"blockSize": [1 << 20] * 3}, "claims chunks of"),
        ({"dataType": "string"}, "holds string; wanted numbers"),
        ({"compression": {"type": "lzo"}}, "cannot be read as an N5 array: .*lzo"),
        ({"axes": ["q", "y", "x"]}, "names an axis 'q'"),
        (
            {"transform": {"axes": ["z", "y", "x"], "scale": [1, 0, 1], "units": NM}},
            "has the scale .*; wanted 3 positive numbers",
        ),
    ],
)
def test_metadata_that_cannot_be(tmp_path, changes, message):
    refused(edited(write(tmp_path / "a"), **changes), message)


def read(path):
    open_volume(path).read()


@pytest.mark.parametrize("compression", ["raw", "gzip"])
def test_damaged_blocks(tmp_path, compression):
    path = write(tmp_path / "a", compression=compression)
    block = path / "1" / "0" / "1"
    content = block.read_bytes()
    for damaged in (
        content[:-3],
        content[:10],
        b"",
        content[:4] + struct.pack(">3I", 1 << 30, 1 << 30, 1 << 30) + content[16:],
    ):
        block.write_bytes(damaged)
        refused(path, "a is damaged: its chunk 1/0/1 cannot be read", read)


def test_a_fingerprint_sees_blocks_and_metadata(tmp_path):
    path = write(tmp_path / "a")
    seen = {fingerprint(path)}
    block = path / "0" / "0" / "1"
    block.write_bytes(block.read_bytes()[:-1] + b"x")
    seen.add(fingerprint(path))
    edited(path, pixelResolution={"dimensions": [1, 2, 3], "unit": "um"})
    seen.add(fingerprint(path))
    assert len(seen) == 3
