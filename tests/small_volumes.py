"""A small array on disk, for tests of how arrays are stored."""

import numpy as np

from nisbjax.store.volume import create_zarr

SHAPE = (5, 6, 7)
VALUES = np.random.default_rng(0).integers(0, 60_000, SHAPE).astype(np.uint16)


def written(path, **options):
    """`VALUES` as a zarr array x y z with chunks of 4^3."""
    volume = create_zarr(
        path, shape=SHAPE, dtype="uint16", chunks=(4, 4, 4), axes="xyz", **options
    )
    volume.write(..., VALUES)
    return volume
