"""Memory of a streamed decode and of the sweep, over volumes of many times the budget."""

import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

BUDGET_GB = 0.06
# 5 times the budget as float16 affinities and 30 or 40 times, long in x or in z: far enough
# apart that a few megabytes of chance in a process's peak do not count.
SHORT = {"decode": 4096, "sweep": 4096, "chain": 2048, "joins": 1024}
LONG = {"decode": 32768, "sweep": 24576, "chain": 10240, "joins": 5120}
# Bytes a voxel. The chain has a third of the voxels, for they cost ten times as much, in boxes
# of 1.6 megavoxels with some .1 fragments a voxel: its own boxes are 3.5 times as large, so
# what each leaves counts as .02 there, and tissue (FIB-25) has a twentieth of the fragments.
# Joins hold 69 bytes for each pair of fragments of seven voxels or more, and a few megabytes
# of chance are .1 over so few voxels; whatever held a voxel's label would be 4.
MOST = {"decode": 0.02, "sweep": 0.02, "chain": 0.07, "joins": 0.2}


def peaks(axis, what, folder):
    """Runs in a process of its own; prints the peak resident bytes of short and long.

    As many boxes are decoded in short volumes as in the long one: how many chunks are in
    memory at once is a matter of chance, and the most of many boxes is more than that of a
    few. Before that one short volume fills pools, caches and compiled kernels.
    """
    from peak_memory import forget_peak, peak_bytes

    decode(axis, SHORT[what], what, f"{folder}/first")
    forget_peak()
    for i in range(LONG[what] // SHORT[what]):
        decode(axis, SHORT[what], what, f"{folder}/{i}")
    print(peak_bytes(), end=" ")
    forget_peak()
    decode(axis, LONG[what], what, f"{folder}/long")
    print(peak_bytes())


def decode(axis, length, what, folder):
    import tensorstore as ts

    from nisbjax.decode.chain import ChainParameters
    from nisbjax.decode.streamed.chain import chain_volume
    from nisbjax.decode.streamed.labeling import label_volume
    from nisbjax.decode.streamed.schedule import Schedule
    from nisbjax.decode.thresholds.sweep import nodes_by_threshold
    from nisbjax.store.volume import Volume, create_zarr

    shape = [112, 112, 112]
    shape[axis] = length

    noise = np.random.default_rng(0).random(1 << 19, np.float32)
    chain = what in ("chain", "joins")
    if chain:  # one edge of 25 joins, so that there is less to do
        noise = np.where(noise < 0.04, 0.9, 0.4)
    noise = (noise if chain else noise * 0.7 + 0.3).astype(np.float16)

    def read(domain, chunk, _):
        first = hash(domain.origin) % (noise.size - chunk.size)
        chunk[...] = noise[first : first + chunk.size].reshape(chunk.shape)
        if domain.origin[0] > 2:
            chunk[...] = 0.9  # long edges, none of which keeps anything apart

    store = ts.virtual_chunked(
        read,
        dtype=ts.float16,
        shape=(6 if chain else 3, *shape),
        chunk_layout=ts.ChunkLayout(chunk_shape=(1, 64, 64, 64)),
    )
    affinities = Volume(store, "cxyz", source="noise")
    if what == "sweep":
        positions = np.zeros((1000, 3), np.int64)
        positions[:, axis] = np.linspace(0, length - 1, 1000)
        nodes_by_threshold(affinities, positions, (0.5, 0.6, 0.7), memory_gb=BUDGET_GB)
        return
    output = create_zarr(
        f"{folder}/labels.zarr",
        shape=tuple(shape),
        dtype=np.uint32,
        chunks=(64, 64, 64),
        axes="xyz",
    )
    if what == "decode":
        label_volume(affinities, output, 0.6, memory_gb=BUDGET_GB)
    else:
        box = [112, 112, 112]
        box[axis] = 128
        parameters = ChainParameters(anchor=2)
        if what == "joins":
            parameters = ChainParameters(anchor=7, joins=("average", "absorb"), faces=1)
        chain_volume(
            affinities,
            output,
            parameters=parameters,
            memory_gb=0.2,  # of one box and its halo: 112 x 112 x 160 of 68 bytes
            schedule=Schedule(box_shape=tuple(box)),
        )


@pytest.mark.parametrize(
    "axis, what",
    [(0, "decode"), (2, "sweep"), (0, "joins")]
    + [
        pytest.param(axis, what, marks=pytest.mark.long)
        for axis, what in [(2, "decode"), (0, "sweep"), (0, "chain"), (2, "chain")]
    ],
)
def test_memory_does_not_grow_with_the_volume(axis, what, measured, tmp_path):
    found = measured([__file__, str(axis), what, str(tmp_path)])
    short, long = map(int, found.split())
    slope = (long - short) / (112 * 112 * (LONG[what] - SHORT[what]))
    print(
        f"{what} along axis {axis}: {short >> 20}, {long >> 20} MiB, {slope:.4f} B/voxel"
    )
    assert slope < MOST[what]


if __name__ == "__main__":
    peaks(int(sys.argv[1]), sys.argv[2], sys.argv[3])
