"""Folders of slices: their order, what stands beside them, and what is refused."""

import os
import pickle

import imagecodecs
import numpy as np
import pytest
import tifffile

from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store import fingerprint
from nisbjax.store.volume import open_image, open_labels, open_volume

# x y z: eleven slices of 5 rows (y) and 4 columns (x).
IMAGE = np.arange(4 * 5 * 11, dtype=np.uint8).reshape(4, 5, 11)


def write(path, plane):
    if path.suffix in (".tif", ".TIFF"):
        tifffile.imwrite(path, plane)
    else:
        imagecodecs.imwrite(path, plane, codec=path.suffix[1:].lower())


def folder_of(path, name, values=IMAGE):
    """One file for each z, rows along y and columns along x."""
    path.mkdir()
    for z in range(values.shape[2]):
        write(path / name.format(z), np.ascontiguousarray(values[:, :, z].T))
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", ["{}.png", "s_{:04}.PNG", "{}.tif", "b2_{:02}_x.TIFF"])
def test_slices_are_planes_of_z_in_the_order_of_their_numbers(tmp_path, name, dtype):
    values = IMAGE.astype(dtype) * (1 if dtype == np.uint8 else 300)
    path = folder_of(tmp_path / "em", name, values)
    (path / "notes.txt").write_text("not a slice")
    (path / "._1.png").write_bytes(b"what a Mac leaves")
    volume = open_volume(path)
    assert (volume.axes, volume.dtype, volume.chunks) == ("xyz", dtype, (4, 5, 1))
    np.testing.assert_array_equal(volume.read(), values)
    np.testing.assert_array_equal(
        volume.read(np.s_[1:3, 2:, 9:11]), values[1:3, 2:, 9:11]
    )
    np.testing.assert_array_equal(open_labels(path).read(), values)
    assert open_image(path).shape == (4, 5, 11, 1)
    np.testing.assert_array_equal(
        open_volume(f"{path}#xyz").read(), values.transpose(2, 1, 0)
    )


def test_colours_are_channels(tmp_path):
    path = tmp_path / "em"
    path.mkdir()
    values = np.arange(4 * 5 * 2 * 3, dtype=np.uint8).reshape(4, 5, 2, 3)
    for z in range(2):
        write(path / f"{z}.png", np.ascontiguousarray(values[:, :, z].swapaxes(0, 1)))
    image = open_image(path)
    assert image.axes == "xyzc"
    np.testing.assert_array_equal(image.read(), values)
    with pytest.raises(InputError, match="3 channels; wanted the axes x y z"):
        open_labels(path)


def test_jpeg_is_an_image_and_no_labels(tmp_path):
    path = folder_of(tmp_path / "em", "{}.jpg")
    assert open_image(path).shape == (4, 5, 11, 1)
    with pytest.raises(InputError, match="em holds JPEG, which changes the numbers"):
        open_labels(path)


def test_they_are_found_fingerprinted_and_sent_to_workers(tmp_path):
    path = folder_of(tmp_path / "em", "{}.png")
    assert nisb.find(tmp_path, "em") == [str(path)]
    before = fingerprint.fingerprint(path)
    store = pickle.loads(pickle.dumps(open_volume(path).store))
    np.testing.assert_array_equal(store.read().result(), IMAGE)
    write(path / "3.png", np.zeros((5, 4), np.uint8))
    assert fingerprint.fingerprint(path) != before
    assert not open_volume(path).read()[..., 3].any()  # opened anew, read anew


def test_a_gap_in_the_numbers_is_said(tmp_path, caplog):
    path = folder_of(tmp_path / "em", "s1_{:03}.png")
    open_volume(path)
    assert not caplog.messages
    os.remove(path / "s1_004.png")
    assert open_volume(path).shape == (4, 5, 10)
    (line,) = caplog.messages
    assert "no slice between s1_003.png and s1_005.png (1 such gaps)" in line


def test_every_second_number_is_no_gap(tmp_path, caplog):
    path = folder_of(tmp_path / "em", "{}.png")
    for z in range(1, 11, 2):
        os.remove(path / f"{z}.png")
    assert open_volume(path).shape == (4, 5, 6)
    assert not caplog.messages


def two_formats(path):
    write(path / "12.tif", np.zeros((5, 4), np.uint8))


def one_number_twice(path):
    write(path / "03.png", np.zeros((5, 4), np.uint8))


def another_shape(path):
    write(path / "10.png", np.zeros((4, 5), np.uint8))


def another_type(path):
    write(path / "10.png", np.zeros((5, 4), np.uint16))


def another_shape_inside(path):
    write(path / "4.png", np.zeros((4, 5), np.uint8))


def a_pipe(path):
    os.mkfifo(path / "11.png")


def a_folder(path):
    (path / "11.png").mkdir()


def cut(path):
    (path / "0.png").write_bytes((path / "0.png").read_bytes()[:40])


def empty(path):
    (path / "10.png").write_bytes(b"")


def a_broken_link(path):
    (path / "11.png").symlink_to("nowhere.png")


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (two_formats, "em holds 11 of PNG and 1 of TIFF; wanted slices of one format"),
        (one_number_twice, "em holds 03.png and 3.png, two slices of one number"),
        (another_shape, r"10.png has shape \(4, 5\) of uint8, and the first slice"),
        (another_type, r"10.png has shape \(5, 4\) of uint16, and the first slice"),
        (another_shape_inside, r"4.png has shape \(4, 5\) of uint8, and the first"),
        (a_pipe, "11.png is no file; wanted a slice"),
        (a_folder, "11.png is no file; wanted a slice"),
        (cut, "0.png is damaged: it cannot be read"),
        (empty, "10.png is damaged: it cannot be read"),
        (a_broken_link, "em cannot be read: No such file"),
    ],
)
def test_what_is_refused(tmp_path, spoil, line):
    path = folder_of(tmp_path / "em", "{}.png")
    spoil(path)
    with pytest.raises(InputError, match=line):
        open_volume(path).read()


def test_files_of_several_planes_are_no_slices(tmp_path):
    path = tmp_path / "em"
    path.mkdir()
    for name in ("a1.tif", "a2.tif"):
        tifffile.imwrite(
            path / name, IMAGE.transpose(2, 1, 0), photometric="minisblack"
        )
    message = r"a1.tif has shape \(11, 5, 4\); wanted one plane in each file"
    # Of four columns, it might be taken for colours.
    with pytest.raises(InputError, match=message):
        open_volume(path)


def test_one_slice_alone_points_to_its_folder(tmp_path):
    path = folder_of(tmp_path / "em", "{}.png")
    with pytest.raises(InputError, match="3.png is one slice; name the folder"):
        open_volume(path / "3.png")
