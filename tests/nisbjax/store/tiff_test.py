"""TIFF stacks of ImageJ, OME and plain writers, and what their axes mean."""

import concurrent.futures

import numpy as np
import pytest
import tifffile

from nisbjax.errors import InputError
from nisbjax.store import tiff
from nisbjax.store.volume import open_affinities, open_image, open_labels, open_volume

# x y z c, and the letters in which a file may store it.
IMAGE = np.random.default_rng(0).integers(0, 255, (7, 6, 5, 2)).astype(np.uint8)


def stored(axes, values=IMAGE):
    """The image with its axes in another order, and a time axis of 1."""
    by_letter = {"X": 0, "Y": 1, "Z": 2, "C": 3}
    turned = values.transpose([by_letter[a] for a in axes if a in by_letter])
    return np.expand_dims(turned, axes.index("T")) if "T" in axes else turned


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    "kind, axes",
    [("imagej", "ZCYX"), ("imagej", "TZCYX")]
    + [("ome", a) for a in ("ZCYX", "CZYX", "TCZYX", "CTZYX")],
)
def test_hyperstacks_have_channels(tmp_path, kind, axes, compression):
    path = tmp_path / "a.tif"
    options = {"photometric": "minisblack", "compression": compression, kind: True}
    if kind == "imagej" and compression:
        pytest.skip("ImageJ's own format is not compressed")
    tifffile.imwrite(path, stored(axes), metadata={"axes": axes}, **options)
    image = open_image(path)
    assert image.axes == "xyzc"
    np.testing.assert_array_equal(image.read(), IMAGE)
    np.testing.assert_array_equal(
        image.read(np.s_[2:4, 1:2, 3:5, 1:]), IMAGE[2:4, 1:2, 3:5, 1:]
    )
    np.testing.assert_array_equal(
        open_affinities(path).read(), IMAGE.transpose(3, 0, 1, 2)
    )
    with pytest.raises(InputError, match="with 2 channels; wanted the axes x y z"):
        open_labels(path)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_time_points_are_refused(tmp_path, kind):
    path = tmp_path / "a.tif"
    values = IMAGE.transpose(3, 2, 1, 0)
    options = {"photometric": "minisblack", "metadata": {"axes": "TZYX"}, kind: True}
    tifffile.imwrite(path, values, **options)
    with pytest.raises(InputError, match="with 2 time points; wanted the axes x y z"):
        open_image(path)


def test_axes_that_nobody_names(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE.transpose(3, 2, 1, 0), photometric="minisblack")
    with pytest.raises(
        InputError,
        match=r"a.tif has pages of axes Q Q Y X, shape \(2, 5, 6, 7\), which does not say",
    ):
        open_image(path)
    options = {"photometric": "minisblack", "metadata": {"axes": "QZYX"}}
    tifffile.imwrite(path, IMAGE.transpose(3, 2, 1, 0), ome=True, **options)
    with pytest.raises(InputError, match="has pages of axes Q Z Y X"):
        open_image(path)


STACK = IMAGE[..., 0].transpose(2, 1, 0)  # z y x
TILED = np.zeros((3, 40, 50), np.uint16)
TILED[:] = np.random.default_rng(1).integers(0, 60_000, TILED.shape)


@pytest.mark.parametrize(
    "values, options",
    [
        (STACK, {"bigtiff": True}),
        (STACK, {"byteorder": ">", "compression": "zlib"}),
        (STACK, {"truncate": True}),
        (STACK, {"imagej": True, "truncate": True}),
        (STACK, {"metadata": None}),
        (STACK, {"compression": "lzw", "predictor": True}),
        (STACK, {"compression": "zstd"}),
        (STACK.astype(np.float32), {"compression": "deflate", "predictor": True}),
        (STACK > 100, {}),
        (TILED, {"tile": (16, 16)}),
        (TILED, {"tile": (16, 16), "compression": "lzw"}),
        (TILED, {"rowsperstrip": 7}),
        (TILED, {"rowsperstrip": 7, "compression": "zlib", "metadata": None}),
        (TILED[:, :32, :48], {"tile": (1, 16, 16), "volumetric": True}),
        (TILED[:1], {}),
        (TILED[0], {}),
    ],
    ids=str,
)
def test_stacks_of_every_layout(tmp_path, values, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    volume = open_volume(path)
    expected = (values if values.ndim == 3 else values[None]).T
    assert volume.axes == "xyz" and volume.dtype == values.dtype
    np.testing.assert_array_equal(volume.read(), expected)
    index = np.s_[3:5, 2:6, :1]
    np.testing.assert_array_equal(volume.read(index), expected[index])


def test_jpeg_needs_its_codec_and_has_it(tmp_path):
    path = tmp_path / "a.tif"
    flat = np.full((2, 16, 16), 9, np.uint8)
    tifffile.imwrite(path, flat, photometric="minisblack", compression="jpeg")
    np.testing.assert_array_equal(open_volume(path).read(), flat.T)


def test_colours_are_channels(tmp_path):
    values = np.random.default_rng(2).integers(0, 255, (4, 6, 7, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    np.testing.assert_array_equal(
        open_image(tmp_path / "a.tif").read(), values.transpose(2, 1, 0, 3)
    )
    planar = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    options = {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "b.tif", planar, **options)
    np.testing.assert_array_equal(
        open_image(tmp_path / "b.tif").read(), values.transpose(2, 1, 0, 3)
    )
    with pytest.raises(InputError, match="with 3 channels; wanted the axes x y z"):
        open_labels(tmp_path / "a.tif")


def test_several_series_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(STACK, photometric="minisblack")
        file.write(TILED, photometric="minisblack")
    with pytest.raises(
        InputError,
        match=r"holds 2 series of pages, of shapes \(5, 6, 7\), \(3, 40, 50\)",
    ):
        open_volume(path)


def test_a_plane_of_another_shape_is_no_part_of_the_stack(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in (*STACK, STACK[0, :3]):
            file.write(plane, photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match="holds 2 series of pages"):
        open_volume(path)


def test_a_chain_of_pages_that_breaks_off(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in STACK:
            file.write(
                plane, photometric="minisblack", metadata=None, compression="zlib"
            )
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        third = file.pages[3].offset
    # The fourth list of tags was never written, or says nothing that can be.
    for tail in (b"", b"\xff" * 60, bytes(60)):
        path = tmp_path / f"{len(tail)}{tail[:1].hex()}.tif"
        path.write_bytes(data[:third] + tail)
        with pytest.raises(
            InputError, match="was cut: its list of pages breaks off after 3"
        ):
            open_volume(path)
    round_about = bytearray(data)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, last = file.pages[0].offset, file.pages[4].offset
    count = int.from_bytes(data[last : last + 2], "little")
    at = last + 2 + 12 * count
    round_about[at : at + 4] = first.to_bytes(4, "little")
    path = tmp_path / "round.tif"
    path.write_bytes(round_about)
    with pytest.raises(InputError, match="breaks off after 5"):
        open_volume(path)


def test_no_tiff_at_all(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"abc")
    with pytest.raises(InputError, match="a.tif cannot be read as TIFF"):
        open_volume(path)
    tifffile.imwrite(path, np.zeros((2, 3, 4), np.complex64), photometric="minisblack")
    with pytest.raises(InputError, match="a.tif holds complex64; wanted numbers"):
        open_volume(path)


def test_planes_in_other_files_are_not_fetched(tmp_path):
    """OME's XML may name any file; only the one that was given is read."""
    path = tmp_path / "a.ome.tif"
    options = {"photometric": "minisblack", "compression": "zlib"}
    tifffile.imwrite(path, STACK, metadata={"axes": "ZYX"}, ome=True, **options)
    other = path.read_bytes()
    first = b'IFD="0" PlaneCount="5"'
    assert first in other
    uuid = b'IFD="0" PlaneCount="3"'
    path.write_bytes(other.replace(first, uuid))
    with pytest.raises(InputError, match="holds . pages|plane . cannot be read"):
        open_volume(path).read()


def test_a_stack_is_opened_once(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", compression="zlib")
    opened = []
    real = tifffile.TiffFile
    monkeypatch.setattr(
        tiff.tifffile, "TiffFile", lambda *a, **o: opened.append(a) or real(*a, **o)
    )
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), STACK.T)
    assert len(opened) == 1


def test_a_stack_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack")
    assert open_volume(path).read((0, 0, 0)) == STACK[0, 0, 0]
    tifffile.imwrite(tmp_path / "b.tif", STACK + 1, photometric="minisblack")
    (tmp_path / "b.tif").replace(path)
    assert open_volume(path).read((0, 0, 0)) == STACK[0, 0, 0] + 1


def test_many_threads_read_one_stack(tmp_path):
    path = tmp_path / "a.tif"
    planes = np.random.default_rng(3).integers(0, 255, (60, 40, 50)).astype(np.uint8)
    options = {"photometric": "minisblack", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for plane in planes:
            file.write(plane, **options)
    volume = open_volume(path)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda z: volume.read(np.s_[:, :, z]), range(60)))
    np.testing.assert_array_equal(np.stack(read, -1), planes.T)


def size_of(path):
    return open_volume(path).attributes.get("voxel_size_nm")


def test_voxel_sizes_in_the_words_of_each_program(tmp_path):
    path = tmp_path / "a.tif"
    planes = np.zeros((3, 4, 5), np.uint8)
    # ImageJ: pixels in a unit along x and y, spacing of planes: 8, 16 and 40 nm.
    words = {"axes": "ZYX", "spacing": 0.04, "unit": "um"}
    dots = {"resolution": (125, 62.5)}
    tifffile.imwrite(path, planes, imagej=True, metadata=words, **dots)
    assert size_of(path) == [8, 16, 40]
    words["unit"] = "\\u00B5m"  # as ImageJ writes a micrometre
    tifffile.imwrite(path, planes, imagej=True, metadata=words, **dots)
    assert size_of(path) == [8, 16, 40]
    words["unit"] = "pixel"
    tifffile.imwrite(path, planes, imagej=True, metadata=words, **dots)
    assert size_of(path) is None
    path = tmp_path / "a.ome.tif"
    words = {"axes": "ZYX", "PhysicalSizeX": 0.008, "PhysicalSizeY": 9}
    words |= {"PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 0.03}
    tifffile.imwrite(path, planes, ome=True, metadata=words)
    assert size_of(path) == [8, 9, 30]
    tifffile.imwrite(path, planes, ome=True, metadata={"axes": "ZYX"})
    assert size_of(path) is None
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, planes[:2], resolution=(1e6, 1e6), resolutionunit=3)
    assert size_of(path) is None  # nothing along z
