"""Prediction needs the memory of its budget, whichever axis of the volume is long."""

import json

import pytest

pytestmark = pytest.mark.slow

# The image is computed as it is read, so that nothing but prediction can hold memory.
PROGRAM = """
import json, sys
from peak_memory import peak_bytes
import jax.numpy as jnp, numpy as np, tensorstore as ts
from nisbjax.infer.predict import predict_volume
from nisbjax.infer.windows import Grid
from nisbjax.store.volume import Volume, create_zarr

shape = tuple(json.loads(sys.argv[1]))
def read(domain, chunk, _):
    x, y, z, _ = (np.arange(i.start, i.stop) for i in domain.index_exp)
    chunk[...] = (x[:, None, None] + y[:, None] + z)[..., None] & 7
image = ts.virtual_chunked(
    read, dtype=ts.uint8, shape=[*shape, 1],
    chunk_layout=ts.ChunkLayout(chunk_shape=[32, 32, 32, 1]),
)
output = create_zarr(
    sys.argv[2], shape=(3, *shape), dtype="float16", chunks=(1, 16, 32, 32), axes="cxyz"
)
def apply(params, images):
    return jnp.concatenate([images] * 3, -1)
before = peak_bytes()
predict_volume(
    apply, np.float32(0), Volume(image, "xyzc"), output, Grid(shape, (32, 32, 32)),
    batch_per_device=4, memory_gb=0.06,
)
print(json.dumps([before, peak_bytes()]))
"""


def peak_mb(measured, shape, folder):
    found = measured(["-c", PROGRAM, json.dumps(shape), str(folder / "raw.zarr")])
    before, after = json.loads(found)
    return (after - before) / 1e6


def test_peak_memory_does_not_grow_with_the_volume(measured, tmp_path):
    # The first volume fills the budget of 60 MB; the others are 8 times as long on one
    # axis. Sums for a whole one of them would take 16 bytes x 67 million voxels, 1.07 GB.
    small = peak_mb(measured, (128, 256, 256), tmp_path / "small")
    for axis in range(3):
        shape = [128, 256, 256]
        shape[axis] *= 8
        large = peak_mb(measured, tuple(shape), tmp_path / f"axis{axis}")
        assert large < small + 120, (
            f"{shape}: {large:.0f} MB, {small:.0f} MB when small"
        )
