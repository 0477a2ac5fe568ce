"""Memory of a streamed decode and of the sweep, over volumes of many times the budget."""

import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

BUDGET_GB = 0.06
# 5, 15 and 30 times the budget as float16 affinities, long in x or in z: far enough apart
# that a megabyte of chance in a process's peak does not count.
LENGTHS = (4096, 12288, 24576)


def peaks(axis, what, folder):
    """Runs in a process of its own; prints the peak resident bytes of each length.

    The first length is done twice and counts once: pools, caches and compiled kernels are
    then as large as they get, and what the longer ones add is theirs.
    """
    from peak_memory import forget_peak, peak_bytes

    for name, length in enumerate((LENGTHS[0], *LENGTHS)):
        forget_peak()
        decode(axis, length, what, f"{folder}/{name}")
        if name:
            print(peak_bytes(), end=" ")


def decode(axis, length, what, folder):
    import tensorstore as ts

    from nisbjax.decode.streamed.labeling import label_volume
    from nisbjax.decode.thresholds.sweep import nodes_by_threshold
    from nisbjax.store.volume import Volume, create_zarr

    shape = [112, 112, 112]
    shape[axis] = length

    noise = np.random.default_rng(0).random(1 << 19, np.float32) * 0.7 + 0.3
    noise = noise.astype(np.float16)

    def read(domain, chunk, _):
        first = hash(domain.origin) % (noise.size - chunk.size)
        chunk[...] = noise[first : first + chunk.size].reshape(chunk.shape)

    store = ts.virtual_chunked(
        read,
        dtype=ts.float16,
        shape=(3, *shape),
        chunk_layout=ts.ChunkLayout(chunk_shape=(1, 64, 64, 64)),
    )
    affinities = Volume(store, "cxyz", source="noise")
    if what == "decode":
        chunks = (64, 64, 64)
        output = create_zarr(
            f"{folder}/labels.zarr",
            shape=tuple(shape),
            dtype=np.uint32,
            chunks=chunks,
            axes="xyz",
        )
        label_volume(affinities, output, 0.6, memory_gb=BUDGET_GB)
    else:
        positions = np.zeros((1000, 3), np.int64)
        positions[:, axis] = np.linspace(0, length - 1, 1000)
        nodes_by_threshold(affinities, positions, (0.5, 0.6, 0.7), memory_gb=BUDGET_GB)


@pytest.mark.parametrize("what", ["decode", "sweep"])
@pytest.mark.parametrize("axis", [0, 2])
def test_memory_does_not_grow_with_the_volume(axis, what, measured, tmp_path):
    found = measured([__file__, str(axis), what, str(tmp_path)])
    peaks = [int(x) for x in found.split()]
    voxels = [112 * 112 * length for length in LENGTHS]
    slope = np.polyfit(voxels, peaks, 1)[0]
    print(
        f"{what} along axis {axis}: {[p >> 20 for p in peaks]} MiB, {slope:.4f} B/voxel"
    )
    assert slope < 0.02


if __name__ == "__main__":
    peaks(int(sys.argv[1]), sys.argv[2], sys.argv[3])
