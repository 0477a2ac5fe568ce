"""One channel or time point of a file, said behind its path, in each format that has them."""

import json
import pickle

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from nisbjax.artifacts import file_name, volume_name
from nisbjax.errors import InputError
from nisbjax.store import axes
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import open_image, open_labels, open_volume

# t z c y x, of which `a[t, :, c]` is z y x.
VALUES = np.arange(2 * 3 * 2 * 4 * 5, dtype=np.uint16).reshape(2, 3, 2, 4, 5)


def ome_zarr(path):
    ordered = VALUES.transpose(0, 2, 1, 3, 4)  # t c z y x, as it is specified
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=ordered)
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": list("tczyx"), "datasets": [{"path": "0"}]}
    ]
    return path


def imagej(path):
    path = path.with_suffix(".tif")
    tifffile.imwrite(path, VALUES, imagej=True, metadata={"axes": "TZCYX"})
    return path


def hdf5(path):
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["raw"] = VALUES
        file["raw"].attrs["axes"] = "tzcyx"
    return f"{path.with_suffix('.h5')}/raw"


def unnamed(path):
    np.save(path.with_suffix(".npy"), VALUES)
    return f"{path.with_suffix('.npy')}#tzcyx"


@pytest.mark.parametrize("write", [ome_zarr, imagej, hdf5, unnamed])
def test_a_channel_and_a_time_point_are_named_behind_the_path(tmp_path, write):
    path = write(tmp_path / "em")
    wanted = VALUES[1, :, 0].transpose(2, 1, 0)
    for named in (f"{path}#c=0#t=1", f"{path}#t=1#c=0"):
        volume = open_labels(named)
        np.testing.assert_array_equal(volume.read(), wanted)
        assert volume.attributes["axes"] == list("xyz")
        again = open_labels(volume.source)  # the source says it all
        np.testing.assert_array_equal(again.read(), wanted)
    store = pickle.loads(pickle.dumps(volume.store))
    np.testing.assert_array_equal(store.read().result(), wanted)
    both = open_image(f"{path}#t=1")
    np.testing.assert_array_equal(both.read(), VALUES[1].transpose(3, 2, 0, 1))
    prints = {fingerprint(f"{path}#t={t}#c={c}") for t in (0, 1) for c in (0, 1)}
    assert len(prints) == 4


def test_what_is_not_there_is_refused_with_what_is(tmp_path):
    path = ome_zarr(tmp_path / "em.zarr")
    for named, message in (
        (
            path,
            r"with 2 time points; .* name one of them behind the path, as .*em.zarr/0#t=0",
        ),
        (f"{path}#c=0", "with 2 time points"),
        (
            f"{path}#t=0#c=2",
            "em.zarr/0 has 2 channels, and c=2 was said of it; wanted 0 to 1",
        ),
        (f"{path}#c=-1", "no volume at .*#c=-1"),
        (f"{path}#c=0#c=1", "no volume at .*#c=0"),
    ):
        with pytest.raises(InputError, match=message):
            open_volume(named)
    with pytest.raises(InputError, match="with 2 channels; .*, as .*#t=0#c=0"):
        open_labels(f"{path}#t=0")
    np.save(tmp_path / "a.npy", VALUES[0])
    with pytest.raises(
        InputError, match="the axes none that a word names, and c=1 .* as #czyx#c=0"
    ):
        open_volume(tmp_path / "a.npy#c=1")


def test_offsets_of_all_channels_are_none_of_one(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["main"] = VALUES[0]
        file["main"].attrs["axes"] = "zcyx"
        file["main"].attrs["offsets"] = json.dumps([[1, 0, 0], [0, 1, 0]])
    assert "offsets" in open_volume(tmp_path / "a.h5").attributes
    assert "offsets" not in open_volume(f"{tmp_path}/a.h5#c=1").attributes


def test_paths_keep_what_is_said_behind_them():
    assert axes.split_path("a.h5/raw#zyx#c=1") == ("a.h5/raw", "zyx#c=1")
    assert axes.split_path("a#b#zyx") == ("a#b", "zyx")
    assert axes.split_path("a#zyx#xyz") == ("a#zyx", "xyz")  # one order alone
    assert axes.with_axes("a#c=1", "zyx") == "a#zyx#c=1"
    assert axes.with_axes("a#xyz", "zyx#t=0") == "a#xyz#t=0"
    assert axes.with_axes("", "zyx") == ""
    assert axes.with_axes("a", "") == "a"
    # Two channels of one file have names of their own.
    assert file_name("d/a.h5#czyx#c=1") == "a_c1"
    assert volume_name("/d/seed6/data.zarr/img#c=1") == "seed6_c1"
