"""Links, layouts and attributes of HDF5 files of other programs."""

import os
import shutil

import h5py
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.store import hdf5
from nisbjax.store.volume import open_image, open_labels, open_volume

VALUES = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)


def file_of(path, values=VALUES, name="main", **options):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=values, **options)
    return path


def refused(path, message, **options):
    with pytest.raises(InputError, match=message) as info:
        open_volume(path, **options)
    assert "\n" not in str(info.value)


def test_soft_links_inside_the_file_are_followed(tmp_path):
    path = file_of(tmp_path / "a.h5", name="deep/raw")
    with h5py.File(path, "a") as file:
        file["main"] = h5py.SoftLink("/deep/raw")
        file["group"] = h5py.SoftLink("deep")
        file["deep/beside"] = h5py.SoftLink("raw")
        file["gone"] = h5py.SoftLink("/nowhere")
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    for name in (None, "main", "group/raw", "deep/beside", "/deep//raw"):
        np.testing.assert_array_equal(open_volume(path, dataset=name).read(), VALUES)
    refused(path, "has no dataset 'gone'; it holds deep/raw", dataset="gone")
    refused(path, "holds /. as a link that leads round in a circle", dataset="a")


def test_links_to_other_files_are_refused(tmp_path):
    file_of(tmp_path / "b.h5")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["main"] = h5py.ExternalLink("b.h5", "/main")
        file["soft"] = h5py.SoftLink("/main")
        file["group"] = h5py.ExternalLink("b.h5", "/")
    message = (
        "holds /main as a link that leads to /main of another file, b.h5; name the"
    )
    refused(path, message)
    refused(path, message, dataset="soft")
    refused(path, "holds /group as a link that leads to /", dataset="group/main")


def test_external_storage_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(VALUES.nbytes))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        external = [(str(tmp_path / "secret"), 0, VALUES.nbytes)]
        file.create_dataset("main", VALUES.shape, "u2", external=external)
    refused(path, "keeps its data in other files .*secret.*, which is not followed")


def virtual(path, source, name="main", shape=VALUES.shape):
    layout = h5py.VirtualLayout(VALUES.shape, "u2")
    layout[: shape[0]] = h5py.VirtualSource(str(source), name, shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("main", layout, fillvalue=0)
    return path


def test_virtual_datasets_with_their_sources(tmp_path):
    file_of(tmp_path / "b.h5")
    path = virtual(tmp_path / "a.h5", "b.h5")
    volume = open_volume(path)
    assert volume.chunks == VALUES.shape
    np.testing.assert_array_equal(volume.read(), VALUES)
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:  # within one file
        file["part"] = VALUES
        layout = h5py.VirtualLayout(VALUES.shape, "u2")
        layout[:] = h5py.VirtualSource(file["part"])
        file.create_virtual_dataset("own", layout)
    np.testing.assert_array_equal(open_volume(path, dataset="own").read(), VALUES)


def test_virtual_datasets_without_their_sources(tmp_path):
    message = "a.h5/main is a virtual dataset whose source /?main of b.h5 "
    path = virtual(tmp_path / "a.h5", "b.h5")
    refused(path, message + "is not there")
    file_of(tmp_path / "b.h5", name="other")
    refused(path, message + "is not there")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    refused(path, message + "cannot be read")
    file_of(tmp_path / "b.h5", VALUES[:3])
    refused(path, message + "has 126 values where 210 are needed")
    layout = h5py.VirtualLayout((2, 6, 7), "u2")
    layout[:] = h5py.VirtualSource("b.h5", "main", (5, 6, 7))[2:4]
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file.create_virtual_dataset("main", layout)
    refused(tmp_path / "part.h5", r"has shape \(3, 6, 7\) where \(4, 6, 7\) is needed")
    file_of(tmp_path / "b.h5")
    part = open_volume(tmp_path / "part.h5").read()
    np.testing.assert_array_equal(part, VALUES[2:4])
    (tmp_path / "b.h5").unlink()
    virtual(tmp_path / "b.h5", "c.h5")
    refused(path, message + "reads from other files itself")
    (tmp_path / "b.h5").unlink()
    os.mkfifo(tmp_path / "b.h5")
    refused(path, message + "is not there")


def test_filters_that_are_not_here_are_named(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        # Optional, so that HDF5 lets the dataset be made without it.
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((5, 6, 7))
        creation.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 2))
        space = h5py.h5s.create_simple(VALUES.shape)
        h5py.h5d.create(file.id, b"main", h5py.h5t.NATIVE_UINT16, space, creation)
    refused(
        path,
        r"is compressed with HDF5's filter 32008 \(bitshuffle\), which is not here; "
        ".*hdf5plugin.*gzip",
    )


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 2, 3)])
def test_contiguous_data_in_pieces(tmp_path, monkeypatch, start):
    """Only the cubes that a read touches are read."""
    monkeypatch.setattr(hdf5, "chunk_of", lambda shape: (2, 3, 4))
    volume = open_volume(file_of(tmp_path / "a.h5"))
    asked = []
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset,
        "__getitem__",
        lambda s, i, **o: asked.append(i) or read(s, i, **o),
    )
    index = tuple(slice(a, a + 1) for a in start)
    np.testing.assert_array_equal(volume.read(index), VALUES[index])
    a, b, c = start
    assert asked == [np.s_[a // 2 * 2 : 2, b // 3 * 3 : 3, c // 4 * 4 : 4]]


def test_a_dataset_of_no_shape_or_type(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["empty"] = h5py.Empty("f4")
        file["scalar"] = np.float32(3)
        file["text"] = np.array(["a", "b"], object)
        file["complex"] = np.zeros((2, 3, 4), np.complex64)
        file["long"] = np.zeros((2, 3, 4), np.longdouble)
        file["bool"] = np.ones((2, 3, 4), bool)
        h5py.h5d.create(
            file.id,
            b"opaque",
            h5py.h5t.create(h5py.h5t.OPAQUE, 3),
            h5py.h5s.create_simple((2, 3, 4)),
        )
        file["named"] = np.dtype("u2")
    refused(path, "a.h5/empty is empty: it has no shape", dataset="empty")
    refused(path, r"has shape \(\); wanted 3 or 4 axes", dataset="scalar")
    for name in ("text", "complex", "long", "opaque"):
        refused(path, "a.h5 holds .*; wanted numbers", dataset=name)
    refused(path, "has no dataset 'named'; it holds ", dataset="named")
    assert open_volume(path, dataset="bool").read().all()


def test_a_file_with_many_datasets_names_some(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for i in range(25):
            file[f"{i:02}"] = np.uint8(0)
    refused(path, "no dataset 'main'; it holds 00, 01, .*, 19 and 5 more$")


TEXT = np.bytes_("Zürich".encode("latin-1"))
COMPOUND = np.array([(1, 2.5)], [("a", "u1"), ("b", "f4")])
ATTRIBUTES = {
    "latin-1": TEXT,
    "latin-1 of variable length": np.array([TEXT.tobytes()], h5py.string_dtype()),
    "nothing": h5py.Empty("f4"),
    "compound": COMPOUND,
    "one compound": COMPOUND[0],
    "opaque": np.void(b"\x00\x01\xff"),
    "enum": np.array([0, 1], h5py.enum_dtype({"A": 0, "B": 1}, "u1")),
    "lists of any length": np.array(
        [np.arange(2), np.arange(3)], h5py.vlen_dtype("i4")
    ),
    "complex": np.complex64(1 + 2j),
    "NaN": np.float64("nan"),
    "bool": np.bool_(True),
    "half": np.float16(0.5),
    "long double": np.longdouble(0.1),
    "date": np.array([1], "i8"),
    "big endian": np.array([1, 2], ">i4"),
    "deep JSON": "[" * 5000 + "]" * 5000,
    "JSON of a NaN": "[NaN]",
    "text of no end": "x" * 70_000,
    "many numbers": np.zeros(300_000),
    "a zero": "a\x00b",
    "lines": "a\nb",
}


def with_attribute(path, name, value):
    with h5py.File(path, "w", libver="latest") as file:  # which may be long
        main = file.create_dataset("main", data=VALUES)
        if isinstance(value, str) and value == "reference":
            main.attrs[name] = main.ref
            return path
        if isinstance(value, str) and "\x00" in value:
            value = np.bytes_(value.encode())
        main.attrs[name] = value
    return path


@pytest.mark.parametrize("value", [*ATTRIBUTES, "reference"])
def test_attributes_of_any_type(tmp_path, value):
    """They hinder nobody under a name that nobody needs, and are text that can be printed."""
    value = ATTRIBUTES.get(value, value)
    path = with_attribute(tmp_path / "a.h5", "note", value)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), VALUES)
    repr(volume.attributes).encode()
    for word in ("axes", "axis_order", "axistags", "DIMENSION_LABELS", "transform"):
        path = with_attribute(tmp_path / "b.h5", word, value)
        try:
            assert open_labels(path).shape == open_image(path).shape[:3]
        except InputError as error:
            assert "\n" not in str(error) and str(error).encode()
            assert word in str(error)


def test_an_attribute_that_cannot_be_read_is_refused_where_it_is_needed(tmp_path):
    path = with_attribute(tmp_path / "a.h5", "axes", np.zeros(300_000))
    refused(path, "has the attribute axes, which cannot be read: it has 2400000 bytes")
    path = with_attribute(tmp_path / "a.h5", "note", np.zeros(300_000))
    assert "note" not in open_volume(path).attributes


AXES = {
    "bytes": np.bytes_(b"zyx"),
    "list of bytes": np.array([b"z", b"y", b"x"]),
    "list of texts": np.array(["z", "y", "x"], h5py.string_dtype()),
    "text": "ZYX",
    "JSON": '["z", "y", "x"]',
}


@pytest.mark.parametrize(
    "word", ["axes", "axis_order", "axis_names", "_ARRAY_DIMENSIONS"]
)
@pytest.mark.parametrize("value", AXES)
def test_axes_in_any_type(tmp_path, word, value):
    path = with_attribute(tmp_path / "a.h5", word, AXES[value])
    labels = open_labels(path)
    np.testing.assert_array_equal(labels.read(), VALUES.T)
    assert labels.stored_axes == "zyx"
    assert labels.attributes == {"axes": ["x", "y", "z"]}  # now true, and alone


def test_labels_and_scales_of_dimensions(tmp_path):
    path = file_of(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for dimension, name in zip(file["main"].dims, "zyx", strict=True):
            dimension.label = name
    np.testing.assert_array_equal(open_labels(path).read(), VALUES.T)
    path = file_of(tmp_path / "b.h5")
    with h5py.File(path, "a") as file:  # as netCDF writes them
        for axis, name in enumerate("zyx"):
            file[name] = np.arange(VALUES.shape[axis])
            file[name].make_scale(name)
            file["main"].dims[axis].attach_scale(file[name])
    np.testing.assert_array_equal(open_labels(path / "main").read(), VALUES.T)
    path = shutil.copy(path, tmp_path / "c.h5")
    with h5py.File(path, "a") as file:
        file["main"].attrs["axes"] = "xyz"
    refused(
        path, "contradicts itself: its axes says x y z and its dimension scales says z"
    )


@pytest.mark.parametrize("name", ["axes", "axis_order", "axistags", "offsets"])
def test_an_empty_attribute_is_as_none(tmp_path, name):
    path = with_attribute(tmp_path / "a.h5", name, h5py.Empty("S1"))
    volume = open_volume(path)
    assert name not in volume.attributes
    np.testing.assert_array_equal(volume.read(), VALUES)
