"""Image and labels of one volume: what one of them says of its axes holds for both."""

import h5py
import numpy as np
import pytest
import tifffile

from nisbjax.errors import InputError
from nisbjax.store import partners
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import create_zarr, open_image

SHAPE = (4, 5, 6)  # x y z
IMAGE = np.arange(120, dtype=np.uint8).reshape(SHAPE)
LABELS = np.arange(120, dtype=np.uint32).reshape(SHAPE) + 1


def write_hdf5(path, array, **attributes):
    with h5py.File(path, "w") as file:
        file["main"] = array
        file["main"].attrs.update(attributes)
    return str(path)


def write_tiff(path, array):
    tifffile.imwrite(path, array, photometric="minisblack")
    return str(path)


def require_right(image, label):
    opened, known, _ = partners.open_both(image, label)
    np.testing.assert_array_equal(opened.read()[..., 0], IMAGE)
    np.testing.assert_array_equal(known.read(), LABELS)


@pytest.mark.parametrize("turned", ["image", "labels"])
def test_what_one_says_holds_for_the_other(tmp_path, turned):
    """A TIFF has planes of z by custom; arrays beside it lie as it does: z y x."""
    if turned == "image":
        image = write_tiff(tmp_path / "em.tif", IMAGE.T)
        label = write_hdf5(tmp_path / "labels.h5", LABELS.T)
    else:
        image = write_hdf5(tmp_path / "em.h5", IMAGE.T)
        label = write_tiff(tmp_path / "labels.tif", LABELS.T)
    require_right(image, label)


def test_an_image_with_channels_has_them_last(tmp_path):
    """[z y x c] beside labels that say z y x."""
    image = write_hdf5(tmp_path / "em.h5", np.stack([IMAGE.T] * 2, -1))
    label = write_hdf5(tmp_path / "labels.h5", LABELS.T, axes="zyx")
    opened, *_ = partners.open_both(image, label)
    assert opened.shape == (*SHAPE, 2)
    np.testing.assert_array_equal(opened.read()[..., 1], IMAGE)


def test_nothing_said_is_x_y_z_and_own_words_count(tmp_path):
    image = write_hdf5(tmp_path / "em.h5", IMAGE)
    require_right(image, write_hdf5(tmp_path / "labels.h5", LABELS))
    assert partners.alike(image, image) == (image, image)
    require_right(image, write_hdf5(tmp_path / "own.h5", LABELS, axes="xyz"))
    # Each says its own, and both are believed.
    write_hdf5(tmp_path / "said.h5", LABELS.T, axes="zyx")
    image = write_hdf5(tmp_path / "em2.h5", IMAGE, axes="xyz")
    require_right(image, str(tmp_path / "said.h5"))


def test_axes_are_said_behind_a_path(tmp_path):
    """As wherever a volume is named; the path goes on saying it."""
    image = write_hdf5(tmp_path / "em.h5", IMAGE.T)
    label = write_hdf5(tmp_path / "labels.h5", LABELS.transpose(1, 2, 0))
    require_right(f"{image}#zyx", f"{label}/main#yzx")
    require_right(image, write_tiff(tmp_path / "a.tif", LABELS.T))
    # Of a TIFF too, whose planes are z by custom alone.
    turned = write_tiff(tmp_path / "turned.tif", LABELS)
    require_right(f"{image}#zyx", f"{turned}#xyz")
    assert open_image(f"{image}#zyx").source == f"{image}#zyx"


def test_words_that_differ_are_refused(tmp_path):
    path = tmp_path / "img"
    create_zarr(path, shape=SHAPE, dtype="uint8", chunks=SHAPE, axes="xyz")
    assert open_image(f"{path}#xyz").spatial_shape == SHAPE
    with pytest.raises(
        InputError,
        match="says that its axes are x y z, and z y x was said of it; leave",
    ):
        open_image(f"{path}#zyx")
    image = write_hdf5(tmp_path / "em.h5", IMAGE)
    with pytest.raises(InputError, match=r"has 3 axes, .*, and zyxc was said of it"):
        open_image(f"{image}#zyxc")


@pytest.mark.parametrize("letters", ["zyx", "yzx", "zxy"])
def test_shapes_of_another_order_bring_the_guess_that_works(tmp_path, letters):
    """Labels stored in another order: the error says what to write behind their path."""
    image = write_hdf5(tmp_path / "em.h5", IMAGE)
    order = ["xyz".index(a) for a in letters]
    label = write_hdf5(tmp_path / "labels.h5", LABELS.transpose(order))
    with pytest.raises(InputError, match="are the axes of one of them") as error:
        partners.open_both(image, label)
    advised = str(error.value).split()[-1]
    assert advised == f"{label}#{letters}"
    require_right(image, advised)


def test_other_shapes_are_refused(tmp_path):
    image = write_hdf5(tmp_path / "em.h5", IMAGE)
    label = write_hdf5(tmp_path / "labels.h5", LABELS[1:])
    with pytest.raises(InputError, match=r"has shape \(3, 5, 6\) but .*wanted labels"):
        partners.open_both(image, label)


def test_a_fingerprint_is_of_the_array_as_it_is_read(tmp_path):
    image = write_hdf5(tmp_path / "em.h5", IMAGE)
    plain = fingerprint(image)
    assert fingerprint(f"{image}#zyx") != plain
    assert fingerprint(f"{image}#xyz") == plain  # as it is read anyway
    named = write_hdf5(tmp_path / "named.h5", IMAGE, axes="zyx")
    assert fingerprint(f"{named}#zyx") == fingerprint(named)
