"""Any file as one array with named axes; the written one is the one read."""

import pickle

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from small_volumes import SHAPE, VALUES, written

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import stored
from nisbjax.store.volume import (
    Volume,
    create_zarr,
    from_array,
    open_affinities,
    open_image,
    open_labels,
    open_volume,
)
from nisbjax.store.zarr_output import write_attributes


def zarr_array(path, values=VALUES, *, version=2, axes=None):
    """An array as zarr-python writes it."""
    array = zarr.create_array(
        str(path), data=values, chunks=(2, 3, 4, 1)[: values.ndim], zarr_format=version
    )
    if axes is not None:
        array.attrs["axes"] = axes
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_other_programs(tmp_path, version):
    volume = open_volume(zarr_array(tmp_path / "img", version=version))
    assert (volume.shape, volume.chunks, volume.axes) == (SHAPE, (2, 3, 4), "xyz")
    assert volume.dtype == np.uint16 and volume.rank == 3
    np.testing.assert_array_equal(volume.read(), VALUES)
    assert volume.source == str(tmp_path / "img")


def test_zarr_in_shards_is_read_by_the_inner_chunk(tmp_path):
    options = {"chunks": (1, 3, 4), "shards": (2, 6, 8), "zarr_format": 3}
    zarr.create_array(str(tmp_path / "img"), data=VALUES, **options)
    volume = open_volume(tmp_path / "img")
    assert volume.chunks == (1, 3, 4)
    np.testing.assert_array_equal(volume.read(), VALUES)


def test_a_file_reads_as_it_was_made(tmp_path):
    made = written(tmp_path / "a.zarr", attributes={"voxel_size_nm": [9, 9, 12]})
    volume = open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.read(), VALUES)
    assert volume.attributes == made.attributes
    assert volume.attributes == {"axes": ["x", "y", "z"], "voxel_size_nm": [9, 9, 12]}
    # Other programs read it too.
    other = zarr.open_array(str(tmp_path / "a.zarr"), mode="r")
    np.testing.assert_array_equal(other[:], VALUES)
    assert other.attrs["axes"] == ["x", "y", "z"]
    write_attributes(tmp_path / "a.zarr", {"axes": ["x", "y", "z"], "step": 7})
    assert open_volume(tmp_path / "a.zarr").attributes["step"] == 7


def test_chunk_files_are_looked_up_once_for_all_boxes(tmp_path, monkeypatch):
    """TensorStore keeps what each such look-up returns for ever."""
    volume, calls = written(tmp_path / "a.zarr"), []
    find = stored.ChunkFiles.of
    monkeypatch.setattr(
        stored.ChunkFiles, "of", lambda store: calls.append(store) or find(store)
    )
    for start in (0, 4):
        box = Box((0, 0, start), (4, 4, min(start + 4, 7)))
        assert list(volume.chunk_facts(box, volume.source)) == [f"0.0.{start // 4}"]
    assert len(calls) == 1


def test_a_box_selects_the_spatial_axes():
    values = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    box = Box((1, 0, 2), (3, 4, 5))
    affinities = from_array(values, "cxyz")
    np.testing.assert_array_equal(affinities.read(box), values[:, 1:3, :, 2:])
    assert affinities.spatial_shape == (3, 4, 5)
    image = from_array(values.transpose(1, 2, 3, 0), "xyzc")
    np.testing.assert_array_equal(
        image.read(box), values.transpose(1, 2, 3, 0)[1:3, :, 2:]
    )
    image.write(Box((0, 0, 0), (1, 1, 1)), np.array([[[[-1, -2]]]]))
    assert values[:, 0, 0, 0].tolist() == [-1, -2]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """The same values in every format."""
    folder = tmp_path_factory.mktemp("formats")
    zarr_array(folder / "v2.zarr")
    zarr_array(folder / "v3.zarr", version=3)
    turned = np.ascontiguousarray(VALUES.T)
    zarr_array(folder / "zyx.zarr", turned, version=3, axes=["z", "y", "x"])
    with h5py.File(folder / "a.h5", "w") as file:
        options = {"chunks": (2, 3, 4), "compression": "gzip", "shuffle": True}
        file.create_dataset("main", data=VALUES, **options)
    np.save(folder / "a.npy", VALUES)
    tifffile.imwrite(folder / "a.tif", turned, photometric="minisblack")
    return [open_labels(p) for p in sorted(folder.iterdir())]


def test_boxes_equal_slices_in_every_format(volumes):
    assert len(volumes) == 6

    @given(st.tuples(*[st.integers(0, s - 1) for s in SHAPE]), st.data())
    def check(start, data):
        stop = tuple(
            data.draw(st.integers(a + 1, s)) for a, s in zip(start, SHAPE, strict=True)
        )
        box = Box(start, stop)
        for volume in volumes:
            np.testing.assert_array_equal(volume.read(box), VALUES[box.slices])

    check()


def test_volumes_travel_to_other_processes(volumes):
    for volume in volumes:
        copy = pickle.loads(pickle.dumps(volume))
        assert repr(copy) == repr(volume) and copy.attributes == volume.attributes
        np.testing.assert_array_equal(copy.read(), VALUES)


def test_axes_in_another_order_are_turned(tmp_path):
    path = zarr_array(tmp_path / "a", np.ascontiguousarray(VALUES.T), axes="zyx")
    labels = open_labels(path)
    assert labels.axes == "xyz" and labels.attributes["axes"] == ["x", "y", "z"]
    assert labels.chunks == (4, 3, 2)  # of 2 x 3 x 4 in z y x
    np.testing.assert_array_equal(labels.read(), VALUES)
    image = open_image(path)
    assert image.shape == (*SHAPE, 1)
    np.testing.assert_array_equal(image.read()[..., 0], VALUES)
    assert open_volume(path).axes == "zyx"  # as it says where nothing is wanted
    # c z y x on disk.
    pair = np.stack([VALUES.T, VALUES.T + 1]).astype(np.float32)
    path = zarr_array(tmp_path / "b", pair, version=3, axes=["c", "z", "y", "x"])
    for volume, axes in ((open_affinities(path), "cxyz"), (open_image(path), "xyzc")):
        assert volume.axes == axes
        expected = np.stack([VALUES, VALUES + 1], axis=axes.index("c"))
        np.testing.assert_array_equal(volume.read(), expected)


@pytest.mark.parametrize("axes", [5, [{"name": "x"}, {"name": "y"}, {"name": "z"}]])
def test_axes_of_another_convention_say_nothing(tmp_path, axes):
    volume = open_volume(zarr_array(tmp_path / "a", version=3, axes=axes))
    assert volume.axes == "xyz"


def test_an_image_has_a_channel_axis(tmp_path):
    image = open_image(zarr_array(tmp_path / "a"))
    assert image.axes == "xyzc" and image.shape == (*SHAPE, 1)
    assert image.chunks == (2, 3, 4, 1) and image.spatial_chunks == (2, 3, 4)
    np.testing.assert_array_equal(image.read(), VALUES[..., None])
    box = Box((1, 2, 3), (2, 4, 6))
    np.testing.assert_array_equal(image.read(box), VALUES[box.slices][..., None])
    two = np.stack([VALUES, VALUES], axis=-1)
    assert open_image(zarr_array(tmp_path / "b", two)).shape == (*SHAPE, 2)


def refused(message, call, *arguments, **options):
    with pytest.raises(InputError, match=message):
        call(*arguments, **options)


def test_paths_that_lead_to_no_array_are_refused(tmp_path):
    refused("no volume at .*a.zarr; check the path", open_volume, tmp_path / "a.zarr")
    refused("ftp://nisb/a is none of the addresses", open_volume, "ftp://nisb/a")
    (tmp_path / "a.txt").write_text("x")
    refused(
        "a.txt is not a zarr or N5 array, a precomputed",
        open_volume,
        tmp_path / "a.txt",
    )
    zarr_array(tmp_path / "g.zarr" / "img")
    zarr_array(tmp_path / "g.zarr" / "seg")
    refused("without a zarr array; it holds img, seg", open_volume, tmp_path / "g.zarr")
    (tmp_path / "empty").mkdir()
    refused("empty is a folder without a zarr array$", open_volume, tmp_path / "empty")
    zarr.open_group(str(tmp_path / "g3.zarr"), mode="w", zarr_format=3)
    refused("is a zarr group; name an array inside", open_volume, tmp_path / "g3.zarr")
    zarr_array(tmp_path / "v2")
    (tmp_path / "v2" / ".zarray").write_text("{")
    refused("v2/.zarray is not valid JSON", open_volume, tmp_path / "v2")
    zarr_array(tmp_path / "v3", version=3)
    (tmp_path / "v3" / "zarr.json").write_text("{")
    refused("zarr.json is not valid JSON", open_volume, tmp_path / "v3")


def test_arrays_of_another_kind_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    path = tmp_path / "a.npy"
    refused(
        "cannot be written in place; wanted a zarr", open_volume, path, writable=True
    )
    refused(
        r"has shape \(5, 6, 7\); wanted the axes c x y z",
        open_volume,
        path,
        axes="cxyz",
    )
    refused("wanted the axes c x y z", open_affinities, path)
    refused("wanted the axes x y", Volume, from_array(VALUES, "xyz").store, "xy")
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 2, 2, 2), np.uint8))
    refused("wanted 3 or 4 axes", open_volume, tmp_path / "b.npy")
    refused("wanted the axes x y z", open_labels, tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.zeros(SHAPE, np.float32))
    refused(
        "holds float32; wanted labels of an integer type",
        open_labels,
        tmp_path / "c.npy",
    )
    np.save(tmp_path / "d.npy", np.zeros((3, *SHAPE), np.int32))
    refused("holds int32; wanted affinities as", open_affinities, tmp_path / "d.npy")
    zarr.create_array(str(tmp_path / "e"), shape=(0, 3, 3), dtype="u1", zarr_format=2)
    refused(r"e is empty: its shape is \(0, 3, 3\)", open_volume, tmp_path / "e")


def test_a_path_may_lead_through_parent_folders(tmp_path):
    """TensorStore refuses `..` in a path; the command line must not."""
    written = create_zarr(
        tmp_path / "a" / "seg",
        shape=(2, 3, 4),
        dtype=np.uint8,
        chunks=(2, 3, 4),
        axes="xyz",
    )
    written.write(..., np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    (tmp_path / "b").mkdir()
    opened = open_labels(tmp_path / "b" / ".." / "a" / "seg")
    assert (opened.read() == written.read()).all()
