"""The flat arrays: voxels of positions, and what they say of the voxel size."""

import dataclasses

import numpy as np
from small_skeletons import tiny_graph, written

from nisbjax import skeletons
from nisbjax.skeletons.arrays import voxels_of


def test_a_voxel_size_that_disagrees_is_reported(tmp_path):
    loaded = skeletons.load(written(tmp_path, tiny_graph()))
    assert loaded.resolution_note((9.0, 9.0, 12.0)) == ""
    # the tutorial's file says 18 x 18 x 25, which is another volume's
    note = loaded.resolution_note((18.0, 18.0, 25.0))
    assert "voxels of (9, 9, 12) nm, but data.voxel_size_nm is (18, 18, 25)" in note
    # voxels that were computed by 18 x 18 x 25 have nothing to say of it
    placed = dataclasses.replace(loaded, placed=True)
    assert placed.resolution_note((18.0, 18.0, 25.0)) == ""


def test_the_voxel_of_a_position():
    """Of 9.3 nm: corners, a centre, and the last nm of voxel 2, also as float32 has them."""
    for kind in (np.float32, np.float64):
        nm = np.array([[0, 9.3, 33 * 9.3], [4.65, 27.8, 999 * 9.3]], kind)
        found = voxels_of(nm.astype(np.float64), (9.3, 9.3, 9.3))
        assert found.tolist() == [[0, 1, 33], [0, 2, 999]]
