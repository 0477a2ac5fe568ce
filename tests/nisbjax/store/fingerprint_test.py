"""A volume is known again by its content, wherever it lies."""

import h5py
import numpy as np
import pytest
from small_volumes import VALUES, written

from nisbjax.errors import InputError
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.zarr_output import write_attributes


def test_a_fingerprint_is_of_the_content_not_of_the_place(tmp_path):
    written(tmp_path / "a.zarr")
    np.save(tmp_path / "a.npy", VALUES)
    for name, chunk in (("a.zarr", "a.zarr/1.0.1"), ("a.npy", "a.npy")):
        first = fingerprint(tmp_path / name)
        moved = tmp_path / "elsewhere" / name
        moved.parent.mkdir(exist_ok=True)
        (tmp_path / name).rename(moved)
        assert fingerprint(moved) == first
        file = moved.parent / chunk
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert fingerprint(moved) != first
        data[-1] ^= 1
        file.write_bytes(data)
        assert fingerprint(moved) == first
    moved = tmp_path / "elsewhere" / "a.zarr"
    before = fingerprint(moved)
    write_attributes(moved, {"axes": ["z", "y", "x"]})
    assert fingerprint(moved) != before
    before = fingerprint(moved)
    (moved / "0.0.0").rename(moved / "0.0.9")
    assert fingerprint(moved) != before


def test_datasets_of_one_file_have_fingerprints_of_their_own(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"], file["seg"] = VALUES, VALUES
    prints = {fingerprint(tmp_path / "a.h5" / n) for n in ("raw", "seg")}
    assert len(prints) == 2
    with pytest.raises(InputError, match="no volume at .*b.h5; check the path"):
        fingerprint(tmp_path / "b.h5")
