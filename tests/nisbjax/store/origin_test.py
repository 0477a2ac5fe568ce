"""Where labels of a part of an image begin, as files say it."""

import json

import h5py
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.store import origin, partners
from nisbjax.store.volume import create_zarr, from_array


def image(path, shape=(9, 8, 7)):
    np.save(path, np.zeros(shape, np.uint8))
    return str(path)


def test_funlibs_offset_is_in_nm_in_the_order_of_the_axes(tmp_path):
    # z y x: 80 / 40 = 2, 12 / 4 = 3, 4 / 4 = 1.
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        data = file.create_dataset("ids", data=np.ones((4, 3, 5), np.uint64))
        data.attrs["offset"], data.attrs["resolution"] = (80, 12, 4), (40, 4, 4)
    whole, labels, offset = partners.open_both(
        image(tmp_path / "em.npy"), f"{tmp_path}/labels.h5/ids#zyx"
    )
    assert labels.spatial_shape == (5, 3, 4) and offset == (1, 3, 2)
    # What is said comes before what the file says.
    known = origin.offset_of(whole, labels, "0,0,1")
    assert known == (0, 0, 1)
    # (9 - 5) // 2, (8 - 3) // 2, (7 - 4) // 2: BANIS's.
    assert origin.offset_of(whole, labels, "centre") == (2, 2, 1)


def test_ome_zarrs_translation(tmp_path):
    create_zarr(
        tmp_path / "seg.zarr" / "0",
        shape=(2, 3, 4),
        dtype="uint8",
        chunks=(2, 3, 4),
        axes="zyx",
        attributes={"axes": []},
    )
    level = {
        "path": "0",
        "coordinateTransformations": [
            {"type": "scale", "scale": [2.0, 1, 1]},
            {"type": "translation", "translation": [4.0, 1, 3]},
        ],
    }
    units = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    group = {"multiscales": [{"version": "0.4", "axes": units, "datasets": [level]}]}
    (tmp_path / "seg.zarr" / ".zattrs").write_text(json.dumps(group))
    (tmp_path / "seg.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "seg.zarr" / "0" / ".zattrs").unlink()
    _, labels, offset = partners.open_both(
        image(tmp_path / "em.npy") + "#xyz", str(tmp_path / "seg.zarr")
    )
    assert labels.spatial_shape == (4, 3, 2) and offset == (3, 1, 2)  # z: 4 / 2


def test_precomputeds_voxel_offset_counts_from_the_images():
    whole = from_array(
        np.zeros((9, 8, 7, 1), np.uint8), "xyzc", {"voxel_offset": [100, 0, 0]}
    )
    part = np.ones((2, 2, 2), np.uint8)
    labels = from_array(part, "xyz", {"voxel_offset": [104, 1, 2]}, "seg")
    assert origin.offset_of(whole, labels) == (4, 1, 2)
    outside = from_array(part, "xyz", {"voxel_offset": [108, 1, 2]}, "seg")
    with pytest.raises(
        InputError, match="seg has shape .* begins at voxel 8,1,2 of mem"
    ):
        origin.offset_of(whole, outside)
    half = {"offset": [6, 0, 0], "voxel_size": [4, 4, 4]}
    with pytest.raises(
        InputError, match=r"seg begins at -98.5, 0, 0 voxels .* whole vox"
    ):
        origin.offset_of(whole, from_array(part, "xyz", half, "seg"))


def test_nobody_says_it(tmp_path):
    np.save(tmp_path / "seg.npy", np.ones((2, 2, 2), np.uint8))
    pair = image(tmp_path / "em.npy"), str(tmp_path / "seg.npy")
    with pytest.raises(
        InputError, match="wanted labels for every voxel .*label_offset"
    ):
        partners.open_both(*pair)
    with pytest.raises(
        InputError, match="label_offset is '1,2'; wanted x,y,z in voxels"
    ):
        partners.open_both(*pair, "1,2")
