"""Whatever writes a whole file keeps links, and what is no file."""

import os

import numpy as np
import pytest

from nisbjax import config
from nisbjax.errors import InputError
from nisbjax.evaluate import tables
from nisbjax.mask import MaskSpec
from nisbjax.qc import mask_file as mask
from nisbjax.qc import statistics, statistics_file
from nisbjax.store import checksums
from nisbjax.store.exported import export_hdf5
from nisbjax.store.volume import from_array
from nisbjax.store.zarr_output import write_attributes
from nisbjax.viz import plots

TABLE = {"a": np.arange(3)}


def _mask(path):
    image = from_array(np.zeros((4, 4, 4, 1), np.uint8), "xyzc")
    mask.build(image, MaskSpec((4, 4, 4), 0, 1, 1, 1.0), path)


def _statistics(path):
    statistics_file.save(statistics.empty((4, 4, 4), 3, None), path, "this")


def _slices(path):
    image = from_array(np.zeros((4, 4, 4, 1), np.uint8), "xyzc")
    plots.slices(path, {"image": image}, (9.0, 9.0, 12.0))


def _sums(path):
    content = path.with_name("content")
    content.write_bytes(b"c")
    try:
        checksums.write(path.parent)
    finally:
        content.unlink()


WRITERS = {
    "config.json": lambda path: config.write(config.base_config(), path),
    "table.csv": lambda path: tables.write_csv(TABLE, path),
    "table.npz": lambda path: tables.write_npz(TABLE, path),
    "affinity_mask.h5": _mask,
    "planes.npz": _statistics,
    "slices.png": _slices,
    ".zattrs": lambda path: write_attributes(path.parent, {"axes": "xyz"}),
    "SHA256SUMS": _sums,
    "raw.h5": lambda path: export_hdf5(
        from_array(np.zeros((4, 4, 4), np.uint8), "xyz"), path
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_links_stay_and_what_is_no_file_is_refused(tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.symlink_to("../real")
    WRITERS[name](path)
    assert path.is_symlink()
    assert (tmp_path / "real").exists()
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=f"{name} is a folder"):
        WRITERS[name](path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"{name} is a device, pipe or socket"):
        WRITERS[name](path)
    assert os.listdir(path.parent) == [name]
