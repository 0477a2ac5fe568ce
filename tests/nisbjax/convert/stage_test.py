"""Any format into any other: values, axes, voxel sizes; pyramids by hand; what is refused."""

import gzip
import json
import shutil
import struct

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from nisbjax.config import base_config
from nisbjax.convert import copying, stage
from nisbjax.decode.channels import offsets_of
from nisbjax.errors import InputError
from nisbjax.store import slices
from nisbjax.store.finished import require_finished
from nisbjax.store.manifest_lines import NAME
from nisbjax.store.volume import (
    create_zarr,
    open_affinities,
    open_image,
    open_labels,
    open_volume,
)

# x y z: 5 columns, 6 rows, 7 planes; chunks of 4 leave some over on every axis.
LABELS = np.arange(5 * 6 * 7, dtype=np.uint32).reshape(5, 6, 7) << 12
SIZE = [8.0, 9.0, 30.0]
NAMES = {
    "zarr2": "a.zarr",
    "zarr3": "a3.zarr",
    "ome-zarr-0.4": "a.ome.zarr",
    "ome-zarr-0.5": "b.ome.zarr",
    "precomputed": "pre",
    "n5": "a.n5",
    "hdf5": "a.h5",
    "tiff": "a.tif",
}


def section(**keys):
    config = base_config()
    config.convert.update({"chunks": (4, 4, 4), "memory_gb": 0.1, **keys})
    return config.convert


def convert(source, path, **keys):
    return stage.run(section(**keys), str(source), str(path))


def refused(message, source, path, **keys):
    with pytest.raises(InputError, match=message) as info:
        convert(source, path, **keys)
    assert "\n" not in str(info.value)


def saved(path, values):
    np.save(path, values)
    return path


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The labels in every format, by its name."""
    folder = tmp_path_factory.mktemp("stored")
    source = saved(folder / "a.npy", LABELS)
    for name, path in NAMES.items():
        convert(source, folder / path, format=name, voxel_size_nm=tuple(SIZE))
    return folder


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_all_pairs(stored, tmp_path, source, to):
    size = {"voxel_size_nm": tuple(SIZE)} if source == "tiff" else {}
    found = convert(stored / NAMES[source], tmp_path / NAMES[to], format=to, **size)
    volume = open_labels(found)
    np.testing.assert_array_equal(volume.read(), LABELS)
    assert volume.dtype == np.uint32
    if to != "tiff":
        assert voxel_size(volume) == SIZE


def voxel_size(volume):
    return words(volume, "voxel_size_nm")


def words(volume, key):
    """HDF5 has lists as text."""
    found = volume.attributes[key]
    return json.loads(found) if isinstance(found, str) else found


IMAGE = (np.arange(5 * 6 * 7 * 2) % 251).astype(np.uint8).reshape(5, 6, 7, 2)
AFFINITIES = np.random.default_rng(0).random((3, 5, 6, 7), np.float32)
OFFSETS = [[10, 0, 0], [0, 1, 0], [0, -2, 5]]
ORDERS = ("cxyz", "czyx", "zyxc", "xyzc", "cyxz")


def offsets_in(order):
    """As a file of this order names them."""
    spatial = order.replace("c", "")
    return [[offset["xyz".index(a)] for a in spatial] for offset in OFFSETS]


def affinities_in(path, order, **words):
    shape = [dict(zip("cxyz", AFFINITIES.shape, strict=True))[a] for a in order]
    source = create_zarr(
        path,
        shape=tuple(shape),
        dtype="float32",
        chunks=(4, 4, 4, 4),
        axes=order,
        attributes={"offsets": offsets_in(order), **words},
    )
    source.write(..., AFFINITIES.transpose(["cxyz".index(a) for a in order]))
    return path


@pytest.mark.parametrize("to", ORDERS)
@pytest.mark.parametrize("source", ORDERS)
def test_offsets_in_every_order(tmp_path, source, to):
    path = affinities_in(tmp_path / "raw.zarr", source)
    wanted = offsets_of(open_affinities(path))
    assert wanted == tuple(map(tuple, OFFSETS))
    for name in ("a.zarr", "a.h5"):
        found = convert(path, tmp_path / name, order=to, kind="affinities")
        volume = open_affinities(found)
        assert offsets_of(volume) == wanted
        np.testing.assert_array_equal(volume.read(), AFFINITIES)
    # HDF5 has them as text; OME-Zarr is c z y x.
    found = convert(tmp_path / "a.h5", tmp_path / "b.ome.zarr", kind="affinities")
    assert offsets_of(open_affinities(found)) == wanted
    assert open_volume(found).attributes["offsets"] == offsets_in("czyx")


def test_offsets_that_mean_nothing(tmp_path):
    path = affinities_in(tmp_path / "raw.zarr", "cxyz", offsets=[[1, 0, 0]])
    refused("raw.zarr: offsets are .*wanted three", path, tmp_path / "a.zarr")


def test_vectors_of_other_programs_follow_the_axes(tmp_path):
    """funlib's, z y x where the axes are."""
    said = {"resolution": [1, 30, 9, 8], "offset": [300, 90, 80], "units": ["nm"] * 3}
    path = affinities_in(tmp_path / "raw.zarr", "czyx", **said)
    found = convert(path, tmp_path / "a.zarr", order="xyzc", kind="affinities")
    attributes = open_volume(found).attributes
    assert attributes["resolution"] == [8, 9, 30, 1]
    assert attributes["offset"] == [80, 90, 300]
    keys = {"order": "xyzc", "voxel_size_nm": (8, 9, 40), "kind": "affinities"}
    attributes = open_volume(convert(path, tmp_path / "b.zarr", **keys)).attributes
    assert attributes["voxel_size_nm"] == [8, 9, 40]
    assert "resolution" not in attributes and "units" not in attributes


@pytest.mark.parametrize("to", NAMES)
def test_channels_of_images_and_affinities(tmp_path, to):
    keys = {"voxel_size_nm": tuple(SIZE), "format": to}
    source = saved(tmp_path / "em.npy", IMAGE)
    found = convert(source, tmp_path / NAMES[to], kind="image", **keys)
    np.testing.assert_array_equal(open_image(found).read(), IMAGE)
    source = create_zarr(
        tmp_path / "raw.zarr",
        shape=AFFINITIES.shape,
        dtype="float32",
        chunks=(1, 4, 4, 4),
        axes="cxyz",
        attributes={"offsets": OFFSETS},
    )
    source.write(..., AFFINITIES)
    found = convert(tmp_path / "raw.zarr", tmp_path / "second" / NAMES[to], **keys)
    volume = open_affinities(found)
    np.testing.assert_array_equal(volume.read(), AFFINITIES)
    if to != "tiff":
        assert offsets_of(volume) == tuple(map(tuple, OFFSETS))


def test_other_programs_read_them(stored):
    """zarr-python, h5py, tifffile, and bytes as the specifications have them."""
    for name in ("a.zarr", "a3.zarr"):
        np.testing.assert_array_equal(zarr.open_array(stored / name)[:], LABELS)
    assert zarr.open_array(stored / "a3.zarr").metadata.dimension_names == tuple("xyz")
    for name in ("a.ome.zarr", "b.ome.zarr"):
        group = zarr.open_group(stored / name, mode="r")
        np.testing.assert_array_equal(group["0"][:], LABELS.T)
        said = dict(group.attrs)
        (image,) = said.get("ome", said)["multiscales"]
        assert [a["name"] for a in image["axes"]] == list("zyx")
        assert {a["unit"] for a in image["axes"]} == {"nanometer"}
        (level,) = image["datasets"]
        scale = {"type": "scale", "scale": SIZE[::-1]}
        assert level["coordinateTransformations"] == [scale]
    with h5py.File(stored / "a.h5") as file:
        np.testing.assert_array_equal(file["main"][:], LABELS)
        assert file["main"].chunks == (4, 4, 4)
    with tifffile.TiffFile(stored / "a.tif") as file:
        np.testing.assert_array_equal(file.asarray(), LABELS.T)
        assert file.series[0].axes == "ZYX"
    # N5: mode, rank, the block's shape (whole at the end too), big-endian, x fastest.
    block = (stored / "a.n5" / "1" / "0" / "1").read_bytes()
    assert struct.unpack(">HH3I", block[:16]) == (0, 3, 4, 4, 4)
    values = np.frombuffer(gzip.decompress(block[16:]), ">u4")
    values = values.reshape(4, 4, 4, order="F")
    np.testing.assert_array_equal(values[:1, :, :3], LABELS[4:, :4, 4:])
    info = json.loads((stored / "pre" / "info").read_text())
    assert info["type"] == "segmentation" and info["data_type"] == "uint32"
    (scale,) = info["scales"]
    assert (scale["encoding"], scale["resolution"]) == ("compressed_segmentation", SIZE)


def test_a_container_of_n5_says_its_version(tmp_path):
    """z5py opens none without."""
    source = saved(tmp_path / "a.npy", LABELS)
    convert(source, tmp_path / "a.n5" / "raw")
    said = json.loads((tmp_path / "a.n5" / "attributes.json").read_text())
    assert said == {"n5": "2.5.1"}
    convert(source, tmp_path / "a.n5" / "em", downsample=1)
    np.testing.assert_array_equal(open_labels(tmp_path / "a.n5" / "em").read(), LABELS)


def test_raw_precomputed_holds_its_zeros(tmp_path):
    """cloud-volume takes a file that is not there for an error."""
    source = saved(tmp_path / "a.npy", np.zeros((5, 4, 4), np.uint8))
    keys = {"format": "precomputed", "voxel_size_nm": (1, 1, 1)}
    found = convert(source, tmp_path / "pre", **keys)
    assert (found / "1_1_1" / "4-5_0-4_0-4").read_bytes() == bytes(16)


def test_a_pyramid_of_labels_is_by_majority(tmp_path):
    # Of eight voxels 5 are 7 and 3 are 3; the other eight are 9.
    values = np.full((4, 2, 2), 9, np.uint16)
    values[:2] = 7
    values[0, 0, :] = values[1, 0, 0] = 3
    source = saved(tmp_path / "a.npy", values)
    path = convert(source, tmp_path / "a.zarr", kind="labels", downsample=2)
    np.testing.assert_array_equal(open_labels(path / "1").read().ravel(), [7, 9])
    np.testing.assert_array_equal(open_labels(path).read(), values)
    assert open_labels(path / "2").read().item() in (7, 9)  # once each


@pytest.mark.parametrize("to", ["ome-zarr-0.4", "ome-zarr-0.5", "precomputed", "n5"])
def test_a_pyramid_of_an_image_is_by_means(tmp_path, to):
    # z is 30 nm, over twice 9: x is halved alone; the last of 5 voxels is by itself.
    line = np.array([0, 10, 20, 40, 50], np.uint8)
    values = np.broadcast_to(line[:, None, None], (5, 1, 2))
    path = convert(
        saved(tmp_path / "a.npy", values),
        tmp_path / NAMES[to],
        format=to,
        kind="image",
        downsample=2,
        voxel_size_nm=(9, 9, 30),
    )
    names = {"precomputed": ["18_9_30", "36_9_60"], "n5": ["s1", "s2"]}
    first, second = names.get(to, ["1", "2"])
    coarse = open_image(path / first)
    assert coarse.shape == (3, 1, 2, 1)
    assert voxel_size(coarse) == [18, 9, 30]
    np.testing.assert_array_equal(coarse.read()[:, 0, 0, 0], [5, 30, 50])
    # (5 + 30) / 2 = 17.5, to even; z is halved too, 30 < 2 x 18.
    coarse = open_image(path / second)
    assert coarse.shape == (2, 1, 1, 1)
    np.testing.assert_array_equal(coarse.read().ravel(), [18, 50])
    np.testing.assert_array_equal(open_image(path).read()[..., 0], values)


def test_coarse_voxels_lie_between_those_they_are_of(tmp_path):
    source = saved(tmp_path / "a.npy", LABELS)
    path = convert(source, tmp_path / "a.zarr", downsample=1, voxel_size_nm=(8, 8, 8))
    (image,) = json.loads((path / ".zattrs").read_text())["multiscales"]
    # Centres of the first two voxels at 0 and 8 nm: that of both at 4.
    assert image["datasets"][1] == {
        "path": "1",
        "coordinateTransformations": [
            {"type": "scale", "scale": [16.0] * 3},
            {"type": "translation", "translation": [4.0] * 3},
        ],
    }
    assert image["type"] == "mode"


def test_an_offset_goes_along(tmp_path):
    """Chunks of precomputed are named by it; boxes count from 0."""
    source = create_zarr(
        tmp_path / "a.zarr",
        shape=(5, 6, 7),
        dtype="uint32",
        chunks=(4, 4, 4),
        axes="xyz",
        attributes={"voxel_offset": [100, -6, 3], "voxel_size_nm": SIZE},
    )
    source.write(..., LABELS)
    keys = {"format": "precomputed", "downsample": 1}
    path = convert(tmp_path / "a.zarr", tmp_path / "pre", **keys)
    assert (path / "8_9_30" / "104-105_-2-0_3-7").exists()
    volume = open_labels(path)
    np.testing.assert_array_equal(volume.read(), LABELS)
    assert volume.attributes["voxel_offset"] == [100, -6, 3]
    # x and y are halved, z not yet.
    assert open_labels(path / "16_18_30").attributes["voxel_offset"] == [50, -3, 3]
    again = convert(path, tmp_path / "b.ome.zarr")
    assert open_volume(again).attributes["voxel_offset"] == [100, -6, 3]


@pytest.mark.parametrize("to", ["ome-zarr-0.4", "ome-zarr-0.5", "precomputed", "n5"])
def test_words_of_one_scale_stay_with_it(tmp_path, to):
    said = {"voxel_offset": [1, 0, 4], "voxel_size_nm": [8, 8, 8], "note": "mine"}
    said |= {"box": "0:5,0:6,0:7", "volume_shape": [9, 9, 9]}
    keys = {"shape": (5, 6, 7), "dtype": "uint32", "chunks": (4, 4, 4), "axes": "xyz"}
    create_zarr(tmp_path / "a.zarr", attributes=said, **keys).write(..., LABELS)
    more = {"format": to, "downsample": 2}
    path = convert(tmp_path / "a.zarr", tmp_path / NAMES[to], **more)
    finest = open_volume(path).attributes
    assert {key: finest[key] for key in said} == said
    names = {"precomputed": ("16_16_16", "32_32_32"), "n5": ("s1", "s2")}
    for name in names.get(to, "12"):
        coarse = open_volume(path / name).attributes
        # 1 / 2 is no voxel; precomputed counts by whole ones and rounds down.
        first = {"16_16_16": [0, 0, 2], "32_32_32": [0, 0, 1]}.get(name)
        assert coarse.get("voxel_offset") == first
        assert coarse["note"] == "mine"
        assert "box" not in coarse and "volume_shape" not in coarse


def test_a_place_in_coarse_voxels(tmp_path):
    keys = {"shape": (5, 6, 7), "dtype": "uint32", "chunks": (4, 4, 4), "axes": "xyz"}
    said = {"voxel_offset": [2, -6, 0]}
    create_zarr(tmp_path / "a.zarr", attributes=said, **keys).write(..., LABELS)
    path = convert(tmp_path / "a.zarr", tmp_path / "b.ome.zarr", downsample=2)
    assert open_volume(path / "1").attributes["voxel_offset"] == [1, -3, 0]
    assert "voxel_offset" not in open_volume(path / "2").attributes


def test_the_origin_of_a_coarse_scale_is_its_own(tmp_path):
    """1 / 2 rounds down to 0, which is left out; it is not the finest one's 1."""
    keys = {"shape": (5, 6, 7), "dtype": "uint32", "chunks": (4, 4, 4), "axes": "xyz"}
    said = {"voxel_offset": [1, 1, 1]}
    create_zarr(tmp_path / "a.zarr", attributes=said, **keys).write(..., LABELS)
    more = {**PRECOMPUTED, "downsample": 1}
    path = convert(tmp_path / "a.zarr", tmp_path / "a", **more)
    assert open_volume(path).attributes["voxel_offset"] == [1, 1, 1]
    assert "voxel_offset" not in open_volume(path / "2_2_2").attributes


def test_names_that_n5_has_for_itself(tmp_path):
    said = {"compression": "gzip", "dimensions": [1], "blockSize": 3, "dataType": "x"}
    said |= {"resolution": [3, 2, 1], "units": ["um"] * 3, "n5": 1, "note": "mine"}
    keys = {"shape": (5, 6, 7), "dtype": "uint32", "chunks": (4, 4, 4), "axes": "xyz"}
    create_zarr(tmp_path / "a.zarr", attributes=said, **keys).write(..., LABELS)
    volume = open_labels(convert(tmp_path / "a.zarr", tmp_path / "a.n5"))
    np.testing.assert_array_equal(volume.read(), LABELS)
    assert volume.attributes["note"] == "mine"
    assert "voxel_size_nm" not in volume.attributes


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize("last, dtype", [(2**40, "uint64"), (2**31, "uint32")])
def test_labels_of_signed_integers(tmp_path, to, last, dtype):
    values = LABELS.astype(np.int64)
    values[4, 5, 6] = last
    source = saved(tmp_path / "a.npy", values)
    keys = {**PRECOMPUTED, "format": to, "dtype": dtype}
    volume = open_labels(convert(source, tmp_path / NAMES[to], **keys))
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read(), values)


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.parametrize(
    "label, dtype", [(-1, "uint64"), (2**32, "uint32"), (1 << 20, "uint16")]
)
def test_labels_that_the_type_does_not_hold(tmp_path, to, label, dtype):
    values = LABELS.astype(np.int64) >> 12
    values[4, 5, 6] = label
    source = saved(tmp_path / "a.npy", values)
    keys = {**PRECOMPUTED, "format": to, "dtype": dtype, "kind": "labels"}
    message = rf"a.npy holds {label} in the box .*:5,.*:6,.*:7, which {dtype} does not"
    refused(message, source, tmp_path / NAMES[to], **keys)
    assert not (tmp_path / NAMES[to]).exists()  # nothing to be removed by hand


@pytest.mark.parametrize("held", ["int64", "uint64"])
def test_64_bits_are_no_floats(tmp_path, held):
    """2^53 + 1 would be 2^53."""
    source = saved(tmp_path / "a.npy", LABELS.astype(held))
    keys = {"dtype": "float64"}
    refused(f"not hold every {held}", source, tmp_path / "a.zarr", **keys)


def test_grey_values_become_no_narrower(tmp_path):
    source = saved(tmp_path / "a.npy", LABELS.astype(np.uint16))
    keys = {"dtype": "uint8", "kind": "image"}
    message = "not hold every uint16 .*of labels, any"
    refused(message, source, tmp_path / "a.zarr", **keys)


def test_hdf5_decodes_a_slice_once(tmp_path, monkeypatch):
    """Two when the folder is opened, and each of 4 once; chunks are 4 x 4 x 4."""
    (tmp_path / "em").mkdir()
    for z in range(4):
        plane = np.full((16, 16), z, np.uint8)
        imagecodecs.imwrite(tmp_path / "em" / f"{z}.png", plane)
    decoded, names = slices._decoded, []
    monkeypatch.setattr(
        slices, "_decoded", lambda f, n: (names.append(n), decoded(f, n))[1]
    )
    path = convert(tmp_path / "em", tmp_path / "a.h5")
    assert len(names) == 6
    np.testing.assert_array_equal(open_volume(path).read()[3, 5], range(4))


def test_shards_order_and_type(tmp_path):
    source = saved(tmp_path / "a.npy", LABELS)
    path = convert(
        source,
        tmp_path / "a.zarr",
        format="zarr3",
        order="zyx",
        dtype="uint64",
        shards=(8, 8, 8),
        compression="gzip",
    )
    array = zarr.open_array(path)
    assert (array.shape, array.dtype) == ((7, 6, 5), np.uint64)
    assert (array.shards, array.chunks) == ((8, 8, 8), (4, 4, 4))
    np.testing.assert_array_equal(array[:], LABELS.T)
    np.testing.assert_array_equal(open_labels(path).read(), LABELS)


@pytest.mark.parametrize("to", NAMES)
def test_another_time_nothing_is_done(tmp_path, to):
    source = saved(tmp_path / "a.npy", LABELS)
    keys = {"format": to, "voxel_size_nm": (8, 9, 30)}
    path = convert(source, tmp_path / NAMES[to], **keys)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    before = {p: p.stat().st_mtime_ns for p in files}
    convert(source, path, **keys)
    assert {p: p.stat().st_mtime_ns for p in files} == before
    np.save(source, LABELS + 1)
    refused("belongs to a run with other input .*remove it or", source, path, **keys)
    np.save(source, LABELS)
    keys["voxel_size_nm"] = (8, 9, 31)
    refused("with other convert.voxel_size_nm .*remove it or", source, path, **keys)


CHUNKED = [name for name in NAMES if name not in ("hdf5", "tiff")]


@pytest.mark.parametrize("to", CHUNKED)
def test_a_conversion_that_was_stopped_goes_on(tmp_path, to, monkeypatch):
    source = saved(tmp_path / "a.npy", LABELS)
    keys = {"format": to, "voxel_size_nm": (8, 9, 30), "memory_gb": 1e-6}
    keys |= {} if to in ("zarr2", "zarr3") else {"downsample": 1}
    whole = convert(source, tmp_path / "whole" / NAMES[to], **keys)
    write, boxes = copying.Volume.write, []

    def stop(volume, index, values):
        boxes.append(index)
        if len(boxes) == 5:
            raise KeyboardInterrupt
        write(volume, index, values)

    monkeypatch.setattr(copying.Volume, "write", stop)
    path = tmp_path / NAMES[to]
    with pytest.raises(KeyboardInterrupt):
        convert(source, path, **keys)
    with pytest.raises(InputError, match="is unfinished"):
        open_labels(path)
    boxes.clear()
    monkeypatch.setattr(
        copying.Volume, "write", lambda v, i, a: (boxes.append(i), write(v, i, a))
    )
    convert(source, path, **keys)
    assert 4 <= len(boxes) <= 20  # of 8, and 4 or 8 of the coarse one; four are there
    names = {p.relative_to(path) for p in path.rglob("*") if p.is_file()}
    assert names == {p.relative_to(whole) for p in whole.rglob("*") if p.is_file()}
    for name in names:
        if name.name != NAME:
            assert (path / name).read_bytes() == (whole / name).read_bytes()


# Metadata file -> whose object, "" for the file's own, people add words of theirs to.
WORDS = {"zarr.json": "attributes", ".zattrs": "", "attributes.json": "", "info": ""}


@pytest.mark.parametrize("to", CHUNKED)
def test_a_chunk_that_is_lost_is_written_again_and_added_words_stay(tmp_path, to):
    source = saved(tmp_path / "a.npy", LABELS)
    keys = {"format": to, "voxel_size_nm": (8, 9, 30)}
    path = convert(source, tmp_path / NAMES[to], **keys)
    named = [p for p in path.rglob("*") if p.name in WORDS]
    for file in named:
        said = json.loads(file.read_text())
        (said[WORDS[file.name]] if WORDS[file.name] else said)["mesh"] = {"of": "me"}
        file.write_text(json.dumps(said))
    require_finished(path)
    chunk = next(
        p
        for p in path.rglob("*")
        if p.is_file() and p.suffix != ".json" and not p.name.startswith((".", "info"))
    )
    chunk.unlink()
    with pytest.raises(InputError, match=r"is missing; .*again \(--mode=convert\), it"):
        open_labels(path).read()
    convert(source, path, **keys)
    np.testing.assert_array_equal(open_labels(path).read(), LABELS)
    assert named and all('"of": "me"' in " ".join(p.read_text().split()) for p in named)


def test_what_is_in_the_way_stays(tmp_path):
    source = saved(tmp_path / "a.npy", LABELS)
    (tmp_path / "a.tif").write_bytes(b"mine")
    refused("a.tif is in the way and says not that it is o", source, tmp_path / "a.tif")
    (tmp_path / "a.h5").write_bytes(b"mine")
    refused("a.h5 is in the way and cannot be read as HDF5", source, tmp_path / "a.h5")
    zarr.create_array(str(tmp_path / "b.zarr"), data=LABELS, zarr_format=2)
    refused("b.zarr was not written by this stage", source, tmp_path / "b.zarr")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "a.h5").read_bytes()


PRECOMPUTED = {"format": "precomputed", "voxel_size_nm": (1, 1, 1)}


@pytest.mark.parametrize(
    "name, keys, message",
    [
        ("em", {}, "em does not say its format"),
        ("a.npy", {}, "a.npy is the input"),
        ("a.npy/b.zarr", {}, "is the input"),
        (
            "a.h5",
            {"downsample": 1},
            "convert.downsample asks for a pyramid, which HDF5",
        ),
        (
            "a.zarr",
            {"order": "zyxc"},
            "convert.order is zyxc, and .*wanted each of them",
        ),
        ("a.n5", {"order": "zyx"}, "axes of N5 have an order of their own"),
        (
            "a.zarr",
            {"dtype": "uint8", "kind": "image"},
            "dtype is uint8, which does not hold every uint32",
        ),
        ("a.zarr", {"shards": (8, 8, 8)}, "convert.shards .*zarr v2 has none"),
        (
            "a.zarr",
            {"shards": (8, 8, 6), "format": "zarr3"},
            r"convert.shards is \(8, 8, 6\); wanted multiples of convert.chunks",
        ),
        ("a.zarr", {"compression": "zlib"}, "is zlib, which zarr v2 has not; wanted"),
        (
            "a",
            {"format": "precomputed"},
            "does not say its voxel size, and precomputed",
        ),
        (
            "a",
            {**PRECOMPUTED, "dtype": "int64"},
            "holds int64, which precomputed has no",
        ),
        ("a.zarr", {"kind": "affinities"}, "a.npy .*wanted"),
    ],
)
def test_keys_without_a_meaning(tmp_path, name, keys, message):
    source = saved(tmp_path / "a.npy", LABELS)
    before = sorted(tmp_path.iterdir())
    refused(message, source, tmp_path / name, **keys)
    assert sorted(tmp_path.iterdir()) == before


def test_grey_values_or_labels(tmp_path):
    source = saved(tmp_path / "a.npy", LABELS.astype(np.uint16))
    wanted = (
        "uint16, which may be grey values or labels, .*convert.kind=image or labels"
    )
    refused(wanted, source, tmp_path / "a.zarr", downsample=1)
    keys = {**PRECOMPUTED, "compression": "compressed_segmentation"}
    refused("for uint32 and uint64 alone", source, tmp_path / "a", **keys)


def test_axes_that_are_said(tmp_path):
    source = saved(tmp_path / "a.npy", LABELS)
    path = convert(source, tmp_path / "a.zarr", axes="zyx")
    np.testing.assert_array_equal(open_labels(path).read(), LABELS.T)
    shutil.rmtree(path)
    path = convert(f"{source}#zyx", path)
    np.testing.assert_array_equal(open_labels(path).read(), LABELS.T)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.b2nd"])
def test_single_files_of_other_libraries(stored, tmp_path, name):
    """Labels there and back, and affinities with their offsets; again writes nothing."""
    path = convert(stored / NAMES["zarr2"], tmp_path / name)
    volume = open_labels(path)
    np.testing.assert_array_equal(volume.read(), LABELS)
    assert voxel_size(volume) == SIZE
    written = path.stat().st_mtime_ns
    convert(stored / NAMES["zarr2"], path)
    assert path.stat().st_mtime_ns == written
    refused(
        "belongs to a run with other convert.dtype",
        stored / NAMES["zarr2"],
        path,
        dtype="uint64",
    )
    source = affinities_in(tmp_path / "c.zarr", "cxyz")
    path = convert(source, tmp_path / f"c{name}")
    volume = open_affinities(path)
    np.testing.assert_array_equal(volume.read(), AFFINITIES)
    assert words(volume, "offsets") == OFFSETS
    if name == "a.nii":  # by the format's own definition: x the fastest, c the slowest
        start = int(struct.unpack_from("<f", path.read_bytes(), 108)[0])
        raw = np.frombuffer(path.read_bytes()[start:], "<f4")
        np.testing.assert_array_equal(raw, AFFINITIES.transpose(0, 3, 2, 1).ravel())
