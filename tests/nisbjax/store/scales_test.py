"""OME-Zarr groups as other programs write them: which scale is read, and its voxel size."""

import json
import shutil

import numpy as np
import pytest
import zarr
from absl import logging

from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store import scales
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.formats import is_there, split_path
from nisbjax.store.volume import open_image, open_labels, open_volume

# z y x: 4 planes of 6 rows and 8 columns; coarse is every second voxel.
FINE = np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8)
COARSE = np.ascontiguousarray(FINE[::2, ::2, ::2])


def axes_of(letters, unit):
    kinds = {"c": "channel", "t": "time"}
    return [
        {"name": a, "type": kinds[a]}
        if a in kinds
        else {"name": a, "type": "space", **({"unit": unit} if unit else {})}
        for a in letters
    ]


def scale_of(*values):
    return [{"type": "scale", "scale": list(values)}]


def image_of(levels, letters="zyx", unit="nanometer", **more):
    return {
        "version": "0.4",
        "axes": axes_of(letters, unit),
        "datasets": [
            {"path": p, **({"coordinateTransformations": scale_of(*s)} if s else {})}
            for p, s in levels.items()
        ],
        **more,
    }


LEVELS = {"0": (30, 9, 8), "1": (60, 18, 16)}


def group(path, *images, version="0.4", arrays=None):
    """A group by zarr-python, with metadata by hand, as its specification has them."""
    images = images or (image_of(LEVELS),)
    is_new = version == "0.5"
    above = {"multiscales": list(images)}
    above = {"ome": {"version": version, **above}} if is_new else above
    zarr.open_group(
        str(path), mode="w", zarr_format=3 if is_new else 2, attributes=above
    )
    for name, values in (
        {"0": FINE, "1": COARSE} if arrays is None else arrays
    ).items():
        zarr.create_array(
            str(path / name),
            data=values,
            chunks=(1,) * (values.ndim - 3) + (2, 3, 4),
            zarr_format=3 if is_new else 2,
        )
    return path


def refused(path, message, call=open_volume):
    with pytest.raises(InputError, match=message) as info:
        call(path)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_group_is_its_finest_scale(tmp_path, version, caplog):
    path = group(tmp_path / "em.zarr", version=version)
    logging.set_verbosity(logging.INFO)
    scales.say_finest.cache_clear()
    with caplog.at_level("INFO"):
        volume = open_labels(path)
        open_labels(path)
    assert caplog.messages == [
        f"{path} has the scales 0 (8 x 9 x 30 nm), 1 (16 x 18 x 60 nm): 0, the finest, is read"
    ]
    np.testing.assert_array_equal(volume.read(), FINE.T)
    assert volume.source == str(path / "0")
    assert volume.attributes["voxel_size_nm"] == [8, 9, 30]
    coarse = open_labels(path / "1")
    np.testing.assert_array_equal(coarse.read(), COARSE.T)
    assert coarse.attributes["voxel_size_nm"] == [16, 18, 60]
    assert open_image(path).shape == (8, 6, 4, 1)
    assert nisb.find(tmp_path, "em.zarr") == [str(path)]
    assert nisb.find(tmp_path, "*.zarr/1") == [str(path / "1")]


def test_the_finest_is_that_of_the_smallest_voxels(tmp_path):
    turned = image_of({"1": LEVELS["1"], "0": LEVELS["0"]})
    path = group(tmp_path / "a", turned)
    assert split_path(str(path)) == (path / "0", None)
    # Without sizes the first is, as the specification has it.
    path = group(tmp_path / "b", image_of({"1": (), "0": ()}))
    assert split_path(str(path)) == (path / "1", None)
    assert "voxel_size_nm" not in open_volume(path).attributes


@pytest.mark.parametrize(
    "unit, size", [("micrometer", [8e3, 9e3, 3e4]), (None, None), ("pixel", None)]
)
def test_units(tmp_path, unit, size):
    path = group(tmp_path / "a", image_of(LEVELS, unit=unit))
    assert open_volume(path).attributes.get("voxel_size_nm") == size


def test_scales_of_image_and_array_are_multiplied(tmp_path):
    more = {"coordinateTransformations": scale_of(1, 1, 0.5)}
    path = group(tmp_path / "a", image_of(LEVELS, **more))
    assert open_volume(path).attributes["voxel_size_nm"] == [4, 9, 30]


def test_channels_and_time(tmp_path):
    """A channel or time point is none, several channels are those of an image."""
    levels = {"0": (1, 1, 30, 9, 8)}
    values = np.stack([FINE, FINE + 1])[None]
    path = group(tmp_path / "a", image_of(levels, "tczyx"), arrays={"0": values})
    image = open_image(path)
    np.testing.assert_array_equal(image.read(), np.stack([FINE.T, FINE.T + 1], -1))
    assert image.attributes["voxel_size_nm"] == [8, 9, 30]
    refused(path, "with 2 channels; wanted the axes x y z", open_labels)
    one = group(tmp_path / "b", image_of(levels, "tczyx"), arrays={"0": values[:, :1]})
    np.testing.assert_array_equal(open_labels(one).read(), FINE.T)
    values = np.concatenate([values, values])
    path = group(tmp_path / "c", image_of(levels, "tczyx"), arrays={"0": values})
    refused(path, "with 2 time points", open_image)


def test_labels_in_an_image_are_a_group_of_their_own(tmp_path):
    group(tmp_path / "a.zarr")
    group(tmp_path / "a.zarr" / "labels" / "cells", arrays={"0": FINE + 5})
    found = open_labels(tmp_path / "a.zarr" / "labels" / "cells")
    np.testing.assert_array_equal(found.read(), FINE.T + 5)


def test_what_is_not_there(tmp_path):
    path = group(tmp_path / "a")
    for call in (open_volume, fingerprint):
        refused(path / "7", f"{path} has no scale 7; it has 0, 1", call)
    assert not is_there(path / "7")
    shutil.rmtree(path / "0")
    refused(path, "its finest scale is 0, which is not there; name another, .*a/1")
    assert open_labels(path / "1").shape == (4, 3, 2)
    shutil.rmtree(path / "1")
    refused(path, "its finest scale is 0, which is not there; copy it again")


def test_several_images(tmp_path):
    two = (image_of({"0": LEVELS["0"]}), image_of({"1": LEVELS["1"]}))
    path = group(tmp_path / "a", *two)
    refused(path, "holds 2 images, of scales 0 and 1; name an array, as .*/0")
    assert open_labels(path / "1").shape == (4, 3, 2)


@pytest.mark.parametrize("scale", [(30, 9), (30, 9, 0), (30, 9, "8")])
def test_scales_that_are_none(tmp_path, scale):
    path = group(tmp_path / "a", image_of({"0": scale}))
    refused(path, "a/0 has the scale .*; wanted 3 positive numbers, one for each axis")


def test_groups_of_other_kinds(tmp_path):
    path = group(tmp_path / "a")
    (path / ".zattrs").write_text(json.dumps({"multiscales": "none"}))
    refused(path, "is a folder without a zarr array; it holds 0, 1")
    (path / ".zattrs").write_text("{")
    refused(path, "a/.zattrs is not valid JSON")


def test_a_fingerprint_sees_what_the_group_says(tmp_path):
    path = group(tmp_path / "a")
    before = fingerprint(path)
    assert fingerprint(path / "0") == before != fingerprint(path / "1")
    moved = shutil.move(path, tmp_path / "b")
    assert fingerprint(moved) == before
    (moved / "1" / "0.0.0").write_bytes(b"another scale")
    assert fingerprint(moved) == before
    turned = {"multiscales": [image_of(LEVELS, "xyz")]}
    (moved / ".zattrs").write_text(json.dumps(turned))
    assert fingerprint(moved) != before
