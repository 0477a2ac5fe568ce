"""Memory of a streamed decode and of the sweep, over volumes of many times the budget."""

import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

BUDGET_GB = 0.06
# 5 times the budget as float16 affinities and 30 or 40 times, long in x or in z: far enough
# apart that a few megabytes of chance in a process's peak do not count.
SHORT, LONG = 4096, {"decode": 32768, "sweep": 24576}


def peaks(axis, what, folder):
    """Runs in a process of its own; prints the peak resident bytes of short and long.

    As many boxes are decoded in short volumes as in the long one: how many chunks are in
    memory at once is a matter of chance, and the most of many boxes is more than that of a
    few. Before that one short volume fills pools, caches and compiled kernels.
    """
    from peak_memory import forget_peak, peak_bytes

    decode(axis, SHORT, what, f"{folder}/first")
    forget_peak()
    for i in range(LONG[what] // SHORT):
        decode(axis, SHORT, what, f"{folder}/{i}")
    print(peak_bytes(), end=" ")
    forget_peak()
    decode(axis, LONG[what], what, f"{folder}/long")
    print(peak_bytes())


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
    short, long = map(int, found.split())
    slope = (long - short) / (112 * 112 * (LONG[what] - SHORT))
    print(
        f"{what} along axis {axis}: {short >> 20}, {long >> 20} MiB, {slope:.4f} B/voxel"
    )
    assert slope < 0.02


if __name__ == "__main__":
    peaks(int(sys.argv[1]), sys.argv[2], sys.argv[3])
