"""A tiny data set and its config."""

import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.store.volume import create_zarr


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Two volumes of 12^3 voxels with 27 objects of 4^3 each, in NISB's layout."""
    folder = tmp_path_factory.mktemp("nisb")
    draw = np.random.default_rng(0)
    ids = np.arange(1, 28, dtype=np.uint8).reshape(3, 3, 3)
    labels = ids.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    for volume in ("train/seed0", "val/seed5"):
        for name, values in (
            ("img", draw.integers(0, 256, (12, 12, 12, 1), np.uint8)),
            ("seg", labels),
        ):
            create_zarr(
                folder / volume / "data.zarr" / name,
                shape=values.shape,
                dtype="uint8",
                chunks=(6, 6, 6, 1)[: values.ndim],
                axes="xyzc"[: values.ndim],
            ).write(..., values)
    return folder


@pytest.fixture
def config(root):
    c = base_config()
    c.data.root = str(root)
    c.data.patch = (4, 4, 4)
    c.data.offsets = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    c.data.erosion = (0, 1, 0)
    c.augment.affine = 0.0
    c.model.size = "S"
    c.model.out_channels = 3
    c.train.steps = 6
    c.train.batch_per_device = 1
    c.train.precision = "fp32"
    c.train.log_every = 1
    c.train.val_every = 4
    c.train.val_crops = 5
    c.ema.warmup_steps = 2
    c.optimizer.lr = 0.1
    return c
