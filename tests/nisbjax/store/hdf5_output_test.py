"""HDF5 files on a disk that fills: an error after any write, and never a crash."""

import errno
import os

import h5py
import numpy as np
import pytest

from nisbjax.qc import mask_file as mask
from nisbjax.store import hdf5_output, volume
from nisbjax.store.exported import export_hdf5

VALUES = np.random.default_rng(0).integers(0, 255, (40, 40, 40), np.uint8)


def fill(path):
    with hdf5_output.creating(path) as file:
        target = file.create_dataset("main", VALUES.shape, "u1", chunks=(20, 20, 20))
        target.attrs["axes"] = "xyz"
        for x in (0, 20):
            target[x : x + 20] = VALUES[x : x + 20]


def full_after(monkeypatch, number):
    """The disk takes some writes and fails the next one, and all others."""
    left, write = [number], os.pwrite

    def pwrite(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return left


def test_the_file_is_an_ordinary_one(tmp_path):
    fill(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["main"][...], VALUES)
        assert file["main"].attrs["axes"] == "xyz"
    assert os.listdir(tmp_path) == ["a.h5"]


def test_any_write_may_fail(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with monkeypatch.context() as patch:
        left = full_after(patch, 10**6)
        fill(path)
    writes = 10**6 - left[0]
    assert writes > 8  # its eight chunks, and what says where they are
    before = path.read_bytes()
    for number in range(writes):
        with monkeypatch.context() as patch:
            full_after(patch, number)
            with pytest.raises(OSError, match=r"No space left.*a\.h5") as caught:
                fill(path)
        assert caught.value.filename == str(path)
        assert os.listdir(tmp_path) == ["a.h5"]
        assert path.read_bytes() == before


def test_long_work_stops_at_the_first_error(tmp_path, monkeypatch):
    full_after(monkeypatch, 0)
    rows = 0
    with pytest.raises(OSError, match="No space"):  # noqa: SIM117
        with hdf5_output.creating(tmp_path / "a.h5") as file:
            target = file.create_dataset(
                "main", (100, 40, 40), "u1", chunks=(1, 40, 40)
            )
            for rows in range(100):
                target[rows] = 1
                file.flush()
                file.check()
    assert rows == 0


def test_a_body_that_fails_leaves_nothing(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        hdf5_output.creating(tmp_path / "a.h5") as file,
    ):
        file["x"] = 1 / 0
    assert not os.listdir(tmp_path)


def test_exports_and_masks_on_a_full_disk(tmp_path, monkeypatch):
    made = volume.create_zarr(
        tmp_path / "raw.zarr",
        shape=(40,) * 3,
        dtype=np.uint8,
        chunks=(20,) * 3,
        axes="xyz",
    )
    made.write(..., VALUES)
    image = volume.from_array(VALUES[..., None], "xyzc", {}, "memory")
    spec = mask.MaskSpec((40, 40, 40), 2, 38, 0, 0.0)
    full_after(monkeypatch, 2)
    with pytest.raises(OSError, match=r"No space left.*raw\.h5"):
        export_hdf5(made, tmp_path / "raw.h5")
    with pytest.raises(OSError, match=r"No space left.*mask\.h5"):
        mask.build(image, spec, tmp_path / "mask.h5")
    assert os.listdir(tmp_path) == ["raw.zarr"]
