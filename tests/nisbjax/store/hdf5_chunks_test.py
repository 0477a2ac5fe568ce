"""Boxes of HDF5 datasets, put together from chunks."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.store.volume import open_labels

VALUES = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)


def test_reading_starts_no_numba_and_no_jax(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("main", data=VALUES, chunks=(2, 3, 4), compression="gzip")
    program = (
        "import sys; from nisbjax.store.volume import open_volume; "
        f"open_volume({str(path)!r}).read(); "
        "print({'jax', 'numba', 'hdf5plugin'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_chunk_without_filters_that_is_too_short(tmp_path):
    """HDF5 itself takes what stands behind it in the file for its other voxels."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("main", (4, 4, 4), "u2", chunks=(4, 4, 2))
        data.id.write_direct_chunk((0, 0, 0), bytes(40))
        data[..., 2:] = 1
        data.attrs["note"] = "x" * 200
    with pytest.raises(InputError, match="holds 40 bytes and should hold 64"):
        open_labels(path).read()


def test_a_box_takes_its_part_of_each_chunk(tmp_path):
    # Chunks of 2 x 3 x 4; those at the ends are cut, and one was never written.
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset(
            "main", (5, 6, 7), "u2", chunks=(2, 3, 4), compression="lzf", fillvalue=9
        )
        data[:4] = VALUES[:4]
    wanted = VALUES.copy()
    wanted[4:] = 9
    labels = open_labels(tmp_path / "a.h5")
    np.testing.assert_array_equal(labels.read(), wanted)
    np.testing.assert_array_equal(
        labels.read(np.s_[1:5, 2:4, 3:7]), wanted[1:5, 2:4, 3:7]
    )
