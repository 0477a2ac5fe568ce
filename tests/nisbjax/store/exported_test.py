"""A volume as one HDF5 file, and back."""

import json
import re

import h5py
import numpy as np
from small_volumes import VALUES, written

from nisbjax.console import progress
from nisbjax.store.exported import export_hdf5
from nisbjax.store.volume import open_volume


def test_export_to_hdf5(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0)
    caplog.set_level("INFO")
    attributes = {
        "voxel_size_nm": [9.0, 9.0, 12.0],
        "network": {"weights": "ema", "step": 7},
        "software": "nisbjax",
        "scale": 0.2,
    }
    volume = written(tmp_path / "a.zarr", attributes=attributes)
    export_hdf5(volume, tmp_path / "a.h5")
    assert any(re.match(r"export to a.h5: 1 of \d+ boxes", m) for m in caplog.messages)
    with h5py.File(tmp_path / "a.h5") as file:
        main = file["main"]
        np.testing.assert_array_equal(main[:], VALUES)
        assert (main.compression, main.compression_opts) == ("gzip", 4)
        assert main.chunks == (4, 4, 4)
        assert main.attrs["software"] == "nisbjax" and main.attrs["scale"] == 0.2
        assert json.loads(main.attrs["network"]) == attributes["network"]
    back = open_volume(tmp_path / "a.h5")
    np.testing.assert_array_equal(back.read(), VALUES)
    assert back.attributes == volume.attributes
    export_hdf5(volume, tmp_path / "b.h5", dataset="img", gzip=1, chunks=(5, 2, 3))
    other = open_volume(tmp_path / "b.h5/img")
    assert other.chunks == (5, 2, 3)
    np.testing.assert_array_equal(other.read(), VALUES)
    names = [p.name for p in tmp_path.iterdir()]
    assert sorted(names) == ["a.h5", "a.zarr", "b.h5"]  # nothing temporary is left
