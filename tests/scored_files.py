"""Two neurites, a segmentation of them in files of three forms, and how modes score it."""

import h5py
import numpy as np

from nisbjax.config import flatten
from nisbjax.evaluate import stage
from nisbjax.evaluate.truth import Truth
from nisbjax.store import volume

SHAPE = (12, 4, 4)


def made_truth() -> np.ndarray:
    """Two neurites along x: 3 in the half y < 2, 5 in the other."""
    labels = np.full(SHAPE, 5, np.uint16)
    labels[:, :2] = 3
    return labels


def made_segmentation() -> np.ndarray:
    """Neurite 3 is whole (1); neurite 5 is split at x = 6 (2 | 4), background at x 11."""
    labels = np.full(SHAPE, 1, np.uint32)
    labels[:6, 2:], labels[6:, 2:] = 2, 4
    labels[11, 2:] = 0
    return labels


def run(config, out, *, segmentation="", skeleton="", label="", dense="", **options):
    """As the modes call it."""
    x, y, z = map(float, config.data.voxel_size_nm)
    truth = Truth(
        str(skeleton), str(label), (x, y, z), config.data.unlabeled, str(dense)
    )
    return stage.run(
        config.evaluate.metrics,
        out,
        segmentation,
        truth,
        memory_gb=config.decode.memory_gb,
        setting="liconn",
        config=flatten(config.to_dict()),
        **options,
    )


def as_zarr(folder, array):
    written = volume.create_zarr(
        folder / "decoded_x1_ch0-1-2_affinity_cc_0.7.zarr",
        shape=array.shape,
        dtype=array.dtype,
        chunks=(5, 2, 4),
        axes="xyz",
        attributes={"threshold": 0.7},
    )
    written.write(..., array)
    return written.source


def as_hdf5(folder, array):
    path = folder / "theirs.h5"
    with h5py.File(path, "w") as file:
        file["main"] = array
    return path


def as_npy(folder, array):
    path = folder / "theirs.npy"
    np.save(path, array)
    return path
