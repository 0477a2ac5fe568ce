"""Tiny labels of simple shapes, and how their skeletons are made of a configuration."""

import numpy as np

from nisbjax.config import base_config
from nisbjax.skeletonize import stage

VOXEL = (10.0, 10.0, 10.0)


def rod(shape=(40, 9, 9), label=7):
    """A square rod of 5 x 5 voxels along all of x, its axis at y = z = 4."""
    labels = np.zeros(shape, np.uint16)
    labels[:, 2:7, 2:7] = label
    return labels


def two_touching():
    """Two rods of 5 x 5 voxels along x that share a face: 3 in y 2..6, 5 in y 7..11."""
    labels = np.zeros((48, 14, 9), np.uint32)
    labels[:, 2:7, 2:7], labels[:, 7:12, 2:7] = 3, 5
    return labels


def fork(label=9):
    """A stem along x to x = 20, then two arms of 5 x 5 voxels in y and z, 20 apart in y."""
    labels = np.zeros((60, 31, 9), np.uint8)
    labels[:21, 13:18, 2:7] = label
    labels[18:23, 3:28, 2:7] = label
    labels[18:, 3:8, 2:7] = label
    labels[18:, 23:28, 2:7] = label
    return labels


def config_of(**changes):
    """Keys of `skeletonize` for volumes of some dozens of voxels."""
    config = base_config()
    config.data.voxel_size_nm = VOXEL
    small = {"dust_voxels": 0, "tick_nm": 0.0, "const_nm": 50.0}
    config.skeletonize.update(small | {"box_shape": (256, 256, 256)} | changes)
    return config


def asked(labels, output, config=None, region=""):
    """What `stage.run` takes, of labels in a file."""
    from nisbjax.keys import determines

    config = config or config_of()
    x, y, z = map(float, config.data.voxel_size_nm)
    return stage.Skeletonizing(
        config.skeletonize,
        str(labels),
        output,
        region,
        (x, y, z),
        config.data.unlabeled,
        determines.facts(config, "skeletons"),
        config.cluster,
    )


def saved(folder, labels):
    """The labels in a file without a word for its axes."""
    path = folder / "labels.npy"
    np.save(path, labels)
    return path
