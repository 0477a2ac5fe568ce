"""Memory of a conversion with a pyramid, over volumes that are long in x or in z."""

import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

# .13 and .5 GB of 16-bit voxels, against a budget of .05 GB.
SHORT, LONG = 4096, 16384
WIDTH = 128
MOST = 0.02  # bytes a voxel


def peaks(axis, form, folder):
    """In a process of its own: prints the peak resident bytes of short and long."""
    from peak_memory import forget_peak, peak_bytes

    convert(axis, SHORT, form, f"{folder}/first")
    forget_peak()
    for i in range(LONG // SHORT):
        convert(axis, SHORT, form, f"{folder}/{i}")
    print(peak_bytes(), end=" ")
    forget_peak()
    convert(axis, LONG, form, f"{folder}/long")
    print(peak_bytes())


def convert(axis, length, form, folder):
    import os

    from nisbjax.config import base_config
    from nisbjax.convert import stage
    from nisbjax.store.volume import create_zarr

    shape = [WIDTH] * 3
    shape[axis] = length
    source = create_zarr(
        f"{folder}/em.zarr",
        shape=tuple(shape),
        dtype="uint16",
        chunks=(64, 64, 64),
        axes="xyz",
    )
    noise = np.random.default_rng(0).integers(0, 9, (64, 64, 64)).astype(np.uint16)
    for corner in np.ndindex(*(s // 64 for s in shape)):
        index = tuple(slice(64 * c, 64 * c + 64) for c in corner)
        source.store[index].write(noise).result()
    config = base_config()
    file = form in ("hdf5", "tiff")
    config.convert.update(
        format=form,
        kind="image",
        downsample=0 if file else 2,
        memory_gb=0.05,
        voxel_size_nm=(8, 8, 8),
    )
    ending = {"hdf5": ".h5", "tiff": ".tif"}.get(form, "")
    path = f"{folder}/out{ending}"
    stage.run(config.convert, f"{folder}/em.zarr", path)
    assert os.path.exists(path)


@pytest.mark.parametrize(
    "axis, form",
    [(0, "ome-zarr-0.4")]
    + [
        pytest.param(axis, form, marks=pytest.mark.long)
        for axis, form in [(2, "precomputed"), (2, "tiff"), (0, "hdf5")]
    ],
)
def test_memory_does_not_grow_with_the_volume(axis, form, measured, tmp_path):
    found = measured([__file__, str(axis), form, str(tmp_path)])
    short, long = map(int, found.split())
    slope = (long - short) / (WIDTH * WIDTH * (LONG - SHORT))
    print(f"{form}, axis {axis}: {short >> 20}, {long >> 20} MiB, {slope:.4f} B/voxel")
    assert slope < MOST


if __name__ == "__main__":
    peaks(int(sys.argv[1]), sys.argv[2], sys.argv[3])
