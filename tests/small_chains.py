"""Six channels on disk or in memory for tests of the chain, and labels to decode them into."""

import numpy as np

from nisbjax.store.volume import create_zarr


def noise(seed, shape):
    """Random affinities [6 x y z] from .25 to .95: many fragments, most of them small."""
    values = 0.95 - 0.7 * np.random.default_rng(seed).random((6, *shape))
    return values.astype(np.float16)


def broken_neurites(seed, shape, dtype=np.float16):
    """Two neurites side by side along y; half-way on z a plane of .54 breaks both.

    .54 is a logit of .16, which attracts nothing: they join by their links alone.
    """
    values = 0.95 - 0.2 * np.random.default_rng(seed).random((6, *shape))
    y, z = shape[1] // 2, shape[2] // 2
    values[2, :, :, z - 1] = 0.54
    values[1, :, y - 1] = 0.1
    values[4, :, max(0, y - 10) : y] = 0.02
    return values.astype(dtype)


def written(path, values, chunk):
    """Affinities as a zarr array c x y z, in chunks of one channel."""
    volume = create_zarr(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(1, chunk, chunk, chunk),
        axes="cxyz",
    )
    volume.write(..., values)
    return volume


def labels_at(path, shape, chunk):
    """A zarr array x y z that receives labels, or holds them by now."""
    return create_zarr(
        path, shape=shape, dtype=np.uint32, chunks=(chunk,) * 3, axes="xyz"
    )
