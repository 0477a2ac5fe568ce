"""Volumes found in a NISB tree, and one line for everything that is not as it should be."""

import h5py
import numpy as np
import pytest
import tifffile

from nisbjax.data.nisb import find, in_memory, open_pairs
from nisbjax.errors import InputError
from nisbjax.store.volume import create_zarr

IMAGE, LABEL = "train/seed*/data.zarr/img", "train/seed*/data.zarr/seg"


def write(root, seed, shape=(5, 4, 3), label_shape=None, channels=1):
    folder = root / "train" / f"seed{seed}" / "data.zarr"
    image = np.full((*shape, channels), seed, np.uint8)
    labels = np.arange(np.prod(label_shape or shape), dtype=np.uint16)
    labels = labels.reshape(label_shape or shape)
    for name, array, axes in (("img", image, "xyzc"), ("seg", labels, "xyz")):
        volume = create_zarr(
            folder / name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.shape,
            axes=axes,
        )
        volume.write(..., array)


def test_seeds_are_sorted_by_number(tmp_path):
    for seed in (10, 2, 0):
        write(tmp_path, seed)
    pairs = open_pairs(tmp_path, IMAGE, LABEL)
    assert [int(p.image.read().max()) for p in pairs] == [0, 2, 10]
    assert pairs[0].image.shape == (5, 4, 3, 1)
    held = in_memory(pairs, 1.0)
    assert held[1].image.source == pairs[1].image.source
    np.testing.assert_array_equal(held[1].labels.read(), pairs[1].labels.read())
    assert in_memory(pairs, 1e-9) == pairs


@pytest.mark.parametrize("name", ["scans [2024]", "what?", "a*b", "x[!y]", "[", "**"])
def test_a_root_may_have_any_name(tmp_path, name, monkeypatch):
    write(tmp_path / name, 3)
    write(tmp_path / "other", 4)
    (pair,) = open_pairs(tmp_path / name, IMAGE, LABEL)
    assert pair.image.read().max() == 3
    monkeypatch.chdir(tmp_path)
    (pair,) = open_pairs(name, IMAGE, LABEL)
    assert pair.image.read().max() == 3
    # A pattern that names one volume, brackets and all.
    folder = tmp_path / name / "train" / "seed3" / "data.zarr"
    assert find("", str(folder / "img")) == [str(folder / "img")]


def test_a_box_hides_the_rest_of_a_volume(tmp_path):
    write(tmp_path, 0)
    (pair,) = open_pairs(tmp_path, IMAGE, LABEL, box="1:4,0:4,2:3")
    assert pair.image.spatial_shape == pair.labels.shape == (3, 4, 1)
    # Voxel (1, 0, 2) of 5 x 4 x 3 is number 1 * 12 + 0 + 2.
    assert pair.labels.read()[0, 0, 0] == 14
    assert pair.labels.store.domain.origin == (0, 0, 0)
    with pytest.raises(InputError, match=r"shape \(5, 4, 3\); wanted a box inside it"):
        open_pairs(tmp_path, IMAGE, LABEL, box="1:4,0:5,2:3")


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no volume matches .*seed.*; check data.root"):
        find(tmp_path, IMAGE)


def test_labels_of_another_shape(tmp_path):
    write(tmp_path, 0, label_shape=(5, 4, 2))
    message = (
        r"seg has shape \(5, 4, 2\) but .*img has \(5, 4, 3\); wanted labels for every"
    )
    with pytest.raises(InputError, match=message):
        open_pairs(tmp_path, IMAGE, LABEL)


def test_a_box_of_labels_of_a_part_and_their_mask(tmp_path):
    write(tmp_path, 0, label_shape=(3, 4, 2))
    mask = np.ones((5, 4, 3), bool)
    mask[2] = False
    np.save(tmp_path / "mask.npy", mask)
    more = {"mask": "mask.npy", "label_offset": "1,0,1"}
    (pair,) = open_pairs(tmp_path, IMAGE, LABEL, **more)
    assert pair.offset == (1, 0, 1) and pair.image.spatial_shape == (5, 4, 3)
    # Plane x 2 of the image is plane 1 of the labels.
    assert pair.mask.read().all(axis=(1, 2)).tolist() == [True, False, True]
    assert pair.over_labels().image.spatial_shape == (3, 4, 2)
    # Of x 0 to 3 the labels have 1 and 2; they begin a voxel behind the box.
    (pair,) = open_pairs(tmp_path, IMAGE, LABEL, box="0:3,1:4,0:3", **more)
    assert pair.offset == (1, 0, 1) and pair.labels.shape == (2, 3, 2)
    assert pair.mask.shape == (2, 3, 2) and pair.image.spatial_shape == (3, 3, 3)
    with pytest.raises(
        InputError, match="begins at voxel 1,0,1 .* wanted a box with some"
    ):
        open_pairs(tmp_path, IMAGE, LABEL, box="0:1,0:4,0:3", **more)
    np.save(tmp_path / "mask.npy", mask[1:])
    with pytest.raises(
        InputError, match="bool of shape .*; wanted a mask of whole num"
    ):
        open_pairs(tmp_path, IMAGE, LABEL, **more)
    np.save(tmp_path / "mask2.npy", mask)
    with pytest.raises(
        InputError, match=r"1 volumes have labels but 2 match mask\*.npy"
    ):
        open_pairs(tmp_path, IMAGE, LABEL, label_offset="0,0,0", mask="mask*.npy")


def test_an_image_without_labels(tmp_path):
    write(tmp_path, 0)
    write(tmp_path, 1)
    with pytest.raises(InputError, match="2 volumes match .* but 1 match .*seed0"):
        open_pairs(tmp_path, IMAGE, "train/seed0/data.zarr/seg")


def test_images_of_different_channels(tmp_path):
    write(tmp_path, 0)
    write(tmp_path, 1, channels=8)
    with pytest.raises(
        InputError, match="img has 8 channels but .*img has 1; wanted the"
    ):
        open_pairs(tmp_path, IMAGE, LABEL)


def test_a_root_that_is_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="data.root is empty, and no volume matches a/b here; name the"
    ):
        find("", "a/b")


def test_datasets_of_files_several_patterns_and_axes(tmp_path):
    """Globs of HDF5 files with a dataset behind them; the order of axes behind that."""
    for name in ("b2.h5", "b10.h5", "a.h5"):
        (tmp_path / name).write_bytes(b"")
    found = find(tmp_path, "b*.h5/volumes/raw")
    assert [p[len(str(tmp_path)) + 1 :] for p in found] == [
        "b2.h5/volumes/raw",
        "b10.h5/volumes/raw",
    ]
    assert find(tmp_path, "a.h5/raw#zyx, b2.h5/raw", "xyz") == [
        str(tmp_path / "a.h5" / "raw#zyx"),
        str(tmp_path / "b2.h5" / "raw#xyz"),
    ]
    (tmp_path / "c,d.h5").write_bytes(b"")
    assert find(tmp_path, "c,d.h5") == [str(tmp_path / "c,d.h5")]


def test_a_volume_across_its_labels(tmp_path):
    """em.tif and labels.h5, both z y x: the second takes the word of the first."""
    image = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)  # z y x
    tifffile.imwrite(tmp_path / "em.tif", image, photometric="minisblack")
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["main"] = image.astype(np.uint32)
    for said in ("", "zyx"):
        (pair,) = open_pairs(tmp_path, "em.tif", "labels.h5", said=said)
        np.testing.assert_array_equal(pair.labels.read(), image.T)
        np.testing.assert_array_equal(pair.image.read()[..., 0], image.T)
