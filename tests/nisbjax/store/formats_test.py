"""Every kind of HDF5, npy and TIFF file reads as what was written."""

import builtins
import errno
import io
import os
import socket

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import open_volume

SHAPE = (5, 6, 7)
VALUES = np.random.default_rng(0).integers(0, 60_000, SHAPE).astype(np.uint16)
PIECES = [slice(None), slice(1, 4), slice(3, 4), slice(2, 5)]

STORED = {
    "gzip": {"chunks": (2, 3, 4), "compression": "gzip"},
    "shuffled gzip": {"chunks": (2, 3, 4), "compression": "gzip", "shuffle": True},
    "uncompressed": {"chunks": (2, 3, 4)},
    "shuffled": {"chunks": (2, 3, 4), "shuffle": True},
    "lzf": {"chunks": (2, 3, 4), "compression": "lzf"},
    "checksummed": {"chunks": (2, 3, 4), "compression": "gzip", "fletcher32": True},
    "integer scale": {"chunks": (2, 3, 4), "scaleoffset": 0},
    "contiguous": {},
    "chunk beyond the data": {
        "chunks": (8, 8, 8),
        "maxshape": (None, None, None),
        "compression": "gzip",
    },
}


def write_hdf5(path, values=VALUES, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("main", data=values, **options)
    return path


KINDS = [
    pytest.param(options, dtype, id=f"{name} {dtype}")
    for name, options in STORED.items()
    for dtype in ("uint16", ">u2", "uint8", "float16")
    if name != "integer scale" or dtype != "float16"  # HDF5 scales none
]


@pytest.mark.parametrize("options, dtype", KINDS)
def test_hdf5_however_it_is_stored(tmp_path, options, dtype):
    values = (VALUES % 251).astype(dtype)
    volume = open_volume(write_hdf5(tmp_path / "a.h5", values, **options))
    assert volume.chunks == options.get("chunks", SHAPE)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume.read(), values)
    for x in PIECES:
        for z in PIECES:
            index = x, slice(1, 3), z
            np.testing.assert_array_equal(volume.read(index), values[index])


def low_level(file, filters):
    """A dataset whose filters are applied in another order, or twice."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((2, 3, 4))
    for name, *arguments in filters:
        getattr(creation, f"set_{name}")(*arguments)
    space = h5py.h5s.create_simple(SHAPE)
    found = h5py.h5d.create(file.id, b"main", h5py.h5t.NATIVE_UINT16, space, creation)
    return h5py.Dataset(found)


@pytest.mark.parametrize(
    "filters",
    [
        [("deflate", 4), ("shuffle",)],
        [("deflate", 4), ("deflate", 4)],
        [("shuffle",), ("deflate", 1)],
    ],
    ids=str,
)
def test_filters_in_any_order(tmp_path, filters):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        low_level(file, filters)[...] = VALUES
    np.testing.assert_array_equal(open_volume(tmp_path / "a.h5").read(), VALUES)


def test_chunks_that_went_past_a_filter(tmp_path):
    """HDF5 leaves a chunk that gzip would enlarge as it was, and says so in a mask."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        main = file.create_dataset(
            "main", (4, 3, 4), "u2", chunks=(2, 3, 4), compression="gzip", shuffle=True
        )
        first = np.ascontiguousarray(VALUES[:2, :3, :4])
        # Bit 0 is the shuffle, bit 1 the deflate: neither was applied.
        main.id.write_direct_chunk((0, 0, 0), first.tobytes(), filter_mask=3)
        main[2:] = VALUES[2:4, :3, :4]
    volume = open_volume(tmp_path / "a.h5")
    np.testing.assert_array_equal(volume.read(), VALUES[:4, :3, :4])


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_chunks_never_written_hold_the_fill_value(tmp_path, compression):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        options = {"chunks": (2, 3, 4), "fillvalue": 7, "compression": compression}
        file.create_dataset("none", SHAPE, "u2", **options)
        some = file.create_dataset("some", SHAPE, "u2", **options)
        some[:2, :3, :4] = VALUES[:2, :3, :4]
    assert (open_volume(tmp_path / "a.h5", dataset="none").read() == 7).all()
    expected = np.full(SHAPE, 7, np.uint16)
    expected[:2, :3, :4] = VALUES[:2, :3, :4]
    read = open_volume(tmp_path / "a.h5/some").read()
    np.testing.assert_array_equal(read, expected)


def test_a_chunk_across_the_files_chunks(tmp_path):
    """Whoever asks for other pieces than the file's chunks gets the same values."""
    volume = open_volume(write_hdf5(tmp_path / "a.h5", **STORED["shuffled gzip"]))
    starts, stops = st.integers(0, 4), st.integers(1, 5)

    @given(st.tuples(starts, starts, starts), st.tuples(stops, stops, stops))
    def check(start, size):
        index = tuple(
            slice(a, min(a + n, s)) for a, n, s in zip(start, size, SHAPE, strict=True)
        )
        np.testing.assert_array_equal(volume.read(index), VALUES[index])

    check()


def test_a_file_written_anew_is_not_read_through_an_old_handle(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", **STORED["gzip"])
    assert open_volume(path).read((0, 0, 0)) == VALUES[0, 0, 0]
    write_hdf5(tmp_path / "b.h5", VALUES + 1, **STORED["gzip"]).replace(path)
    assert open_volume(path).read((0, 0, 0)) == VALUES[0, 0, 0] + 1


def test_which_dataset_of_a_file(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["deep/inside"] = VALUES
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)  # the only one
    np.testing.assert_array_equal(open_volume(path / "deep/inside").read(), VALUES)
    path = tmp_path / "b.h5"
    with h5py.File(path, "w") as file:
        file["deep/inside"], file["other"] = VALUES, VALUES + 1
    with pytest.raises(
        InputError, match="has no dataset 'main'; it holds deep/inside, other"
    ):
        open_volume(path)
    with pytest.raises(InputError, match="has no dataset 'deep'"):
        open_volume(path, dataset="deep")
    with h5py.File(path, "a") as file:
        file["main"] = VALUES + 2
    np.testing.assert_array_equal(open_volume(path).read(), VALUES + 2)


def test_attributes_of_a_dataset(tmp_path):
    with h5py.File(write_hdf5(tmp_path / "a.h5"), "a") as file:
        attributes = file["main"].attrs
        attributes["axes"] = '["x", "y", "z"]'
        attributes["voxel_size_nm"] = np.array([9.0, 9.0, 12.0])
        attributes["resolution"] = np.int64(9)
        attributes["name"] = np.bytes_(b"seed6")
        attributes["note"] = "[not JSON"
    assert open_volume(tmp_path / "a.h5").attributes == {
        "axes": ["x", "y", "z"],
        "voxel_size_nm": [9.0, 9.0, 12.0],
        "resolution": 9,
        "name": "seed6",
        "note": "[not JSON",
    }


def test_hdf5_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="a.h5 cannot be read as HDF5"):
        open_volume(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("main", (0, 3, 4), "u1")
    with pytest.raises(InputError, match=r"b.h5 is empty: its shape is \(0, 3, 4\)"):
        open_volume(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        pair = np.dtype([("a", "u1"), ("b", "f4")])
        file.create_dataset("main", (2, 3, 4), pair)
    with pytest.raises(InputError, match="c.h5 holds .* wanted numbers"):
        open_volume(tmp_path / "c.h5")


def test_a_damaged_chunk_is_named(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", **STORED["gzip"])
    with h5py.File(path) as file:
        chunk = file["main"].id.get_chunk_info_by_coord((2, 3, 4))
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + 8] = b"\xff" * 8
    path.write_bytes(data)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read((slice(2),) * 3), VALUES[:2, :2, :2])
    with pytest.raises(
        InputError,
        match=r"a.h5 is damaged: its chunk at \(2, 3, 4\) cannot be read \(gzip",
    ):
        volume.read((2, 3, 4))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint16", ">u2", "float32"])
def test_npy(tmp_path, order, dtype):
    values = np.asarray(VALUES.astype(dtype), order=order)
    np.save(tmp_path / "a.npy", values)
    volume = open_volume(tmp_path / "a.npy")
    assert volume.chunks == SHAPE  # whole where smaller than 64
    np.testing.assert_array_equal(volume.read(), values)
    index = slice(1, 4), slice(2, 3), slice(0, 5)
    np.testing.assert_array_equal(volume.read(index), values[index])


def test_npy_of_affinities_is_read_channel_by_channel(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 70, 4, 5), np.uint8))
    volume = open_volume(tmp_path / "a.npy")
    assert volume.axes == "cxyz" and volume.chunks == (1, 64, 4, 5)


def test_npy_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(InputError, match="a.npy is empty: it has no bytes"):
        open_volume(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.full((2, 2, 2), None))
    with pytest.raises(InputError, match="b.npy holds object; wanted numbers"):
        open_volume(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.full((2, 2, 2), "abc"))
    with pytest.raises(InputError, match="c.npy holds <U3; wanted numbers"):
        open_volume(tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", np.zeros((0, 3, 3)))
    with pytest.raises(InputError, match=r"d.npy is empty: its shape is \(0, 3, 3\)"):
        open_volume(tmp_path / "d.npy")


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"imagej": True}]
)
def test_tiff_planes_are_z_y_x_on_disk(tmp_path, options):
    on_disk = np.ascontiguousarray(VALUES.transpose(2, 1, 0))
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(tmp_path / "a.tif", on_disk, **options)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.axes == "xyz" and volume.chunks == (5, 6, 1)  # a plane
    np.testing.assert_array_equal(volume.read(), VALUES)
    index = slice(1, 4), slice(2, 3), slice(3, 6)
    np.testing.assert_array_equal(volume.read(index), VALUES[index])


def test_tiff_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"abc")
    with pytest.raises(InputError, match="a.tif cannot be read as TIFF"):
        open_volume(tmp_path / "a.tif")


def test_suffixes_in_any_case(tmp_path):
    for suffix in ("H5", "HDF5", "hdf", "Hdf"):
        volume = open_volume(write_hdf5(tmp_path / f"a.{suffix}"))
        np.testing.assert_array_equal(volume.read(), VALUES)
        volume = open_volume(tmp_path / f"a.{suffix}" / "main")
        np.testing.assert_array_equal(volume.read(), VALUES)
    with open(tmp_path / "a.NPY", "wb") as file:
        np.save(file, VALUES)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.NPY").read(), VALUES)
    for suffix in ("TIF", "Tiff"):
        tifffile.imwrite(tmp_path / f"a.{suffix}", VALUES.T, photometric="minisblack")
        volume = open_volume(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(volume.read(), VALUES)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.tif", "a.zarr", "a"])
@pytest.mark.parametrize("call", [open_volume, fingerprint])
def test_what_is_neither_file_nor_folder_is_never_opened(tmp_path, name, call):
    path = tmp_path / name
    os.mkfifo(path)
    message = "is a device, pipe or socket; wanted a zarr array, HDF5, npy or TIFF file"
    with pytest.raises(InputError, match=f"{name} {message}"):
        call(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=f"{name} {message}"):
        call(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        with pytest.raises(InputError, match=f"{name} {message}"):
            call(path)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.tif"])
def test_folders_and_empty_files_under_a_files_name(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} is a folder without a zarr array"):
        open_volume(tmp_path / name)
    (tmp_path / name).rmdir()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{name} is empty: it has no bytes; write it"):
        open_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.tif", "a.zarr/.zattrs"])
def test_files_that_may_not_be_read(tmp_path, monkeypatch, name):
    """The superuser, who may run the tests, may read everything."""
    path = tmp_path / name
    zarr.create_array(str(tmp_path / "a.zarr"), data=VALUES, zarr_format=2)
    path.write_bytes(b"{}")
    real = io.open

    def denied(file, *arguments, **options):
        if str(file) == str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr(io, "open", denied)
    monkeypatch.setattr(builtins, "open", denied)
    with pytest.raises(InputError, match=f"{name} cannot be read: Permission denied"):
        open_volume(tmp_path / name.removesuffix("/.zattrs"))


def test_paths_that_no_file_can_have(tmp_path):
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        open_volume(tmp_path / ("x" * 300 + ".h5"))
    with pytest.raises(InputError, match=r"a\\x00b.h5' cannot be read: embedded null"):
        open_volume(f"{tmp_path}/a\0b.h5")
    (tmp_path / "a.h5").symlink_to(tmp_path / "a.h5")
    with pytest.raises(InputError, match="cannot be read: Too many levels of symbolic"):
        open_volume(tmp_path / "a.h5")
    for path, line in (
        ("http://host/a.h5", "is a single file, which is not read at an address"),
        ("file:///data/a.npy", "is none of the addresses that are read"),
    ):
        with pytest.raises(InputError, match=line):
            open_volume(path)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_of_every_version(tmp_path, version):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, VALUES, version)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.npy").read(), VALUES)


@pytest.mark.parametrize(
    "values, held",
    [
        (np.zeros((2, 2, 2), [("a", "u1"), ("b", "f4")]), r"\[\('a'"),
        (np.full((2, 2, 2), None), "object"),
        (np.zeros((2, 2, 2), np.complex64), "complex64"),
        (np.zeros((2, 2, 2), "M8[s]"), "datetime64"),
        (np.zeros((2, 2, 2), np.longdouble), "float128"),
    ],
    ids=["records", "objects", "complex", "dates", "long"],
)
def test_npy_that_holds_no_numbers(tmp_path, values, held):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match=f"a.npy holds {held}.*; wanted numbers"):
        open_volume(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"(" * 900, b"{'descr': 1}", b"\xff" * 40, b"__import__('os')"],
)
def test_npy_headers_that_are_none(tmp_path, header):
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    (tmp_path / "a.npy").write_bytes(start + header)
    with pytest.raises(InputError, match="a.npy cannot be read as npy") as info:
        open_volume(tmp_path / "a.npy")
    assert "\n" not in str(info.value)
