"""The mutex watershed against `mwatershed`: CPU-seconds and bytes a voxel, and exactness.

    python tests/benchmarks/bench_mutex.py [--size 160] [--repeats 3] [--real raw.zarr]

Each side decodes the same affinities in a process of its own, both on one core, in turns; the
best of each counts. Bytes are those of resident memory at its peak, over what was resident
before: `mwatershed` takes weights in double precision, which are made before and not
counted. Affinities are the edges of real labels (`../shared/data/pinky40`; else of random
cells) plus noise, in float16, so many are equal, and the partition is compared once more
with weights that differ by the order in which the project takes equal ones.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import pathlib
import time

import numpy as np
from scipy import ndimage

from nisbjax.decode.mutex_components import mutex_components
from nisbjax.offsets import OFFSETS_6, edge_slices
from nisbjax.store.volume import open_affinities, open_labels

PINKY = (
    pathlib.Path(__file__).parents[3] / "shared/data/pinky40/val/seed0/data.zarr/seg"
)
ATTRACT, REPEL = 0.2, 0.8


def made(size):
    """Affinities [6 x y z] of float16."""
    rng = np.random.default_rng(0)
    shape = (size, size, min(size, 256))
    if PINKY.exists():
        labels = open_labels(PINKY).read(tuple(slice(0, s) for s in shape))
    else:
        cells = rng.random((3, *shape), np.float32)
        labels = ndimage.gaussian_filter(cells, (0, 8, 8, 8)).argmax(0) + 1
    affinities = np.zeros((6, *shape), np.float16)
    for channel, offset in enumerate(OFFSETS_6):
        source, other = edge_slices(shape, offset)
        same = labels[source] == labels[other]
        noise = ndimage.gaussian_filter(rng.normal(0, 1, same.shape), 1) * 0.5
        affinities[channel][source] = np.clip(0.35 + 0.35 * same + noise, 0, 1)
    return affinities


def weights_of(affinities):
    """Signed weights in double precision."""
    p = np.clip(affinities.astype(np.float64), 1e-3, 1 - 1e-3)
    logit = np.round(np.log(p / (1 - p)) * 2**20) / 2**20
    logit[:3] = np.maximum(logit[:3] - ATTRACT, 0)
    logit[3:] = np.minimum(logit[3:] - REPEL, 0)
    return np.round(logit * 2**20) / 2**20


def untied(weights):
    """The same order, equal ones by channel and then by voxel."""
    flat = weights.reshape(-1)
    order = np.argsort(-np.abs(flat), kind="stable")
    strength = np.empty(flat.size)
    strength[order] = np.arange(flat.size, 0, -1)
    return (strength * np.sign(flat)).reshape(weights.shape)


def peak_bytes():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def side(name, path):
    """CPU-seconds, bytes over what was resident before, and labels."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    affinities = np.load(path)
    if name == "mwatershed":
        import mwatershed

        given = weights_of(affinities)
        offsets = [list(offset) for offset in OFFSETS_6]
    else:
        small = affinities[:, :12, :12, :12].copy()
        mutex_components(small, OFFSETS_6)  # compiles
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, start = peak_bytes(), time.process_time()
    if name == "mwatershed":
        labels = mwatershed.agglom(given, offsets)
    else:
        labels = mutex_components(affinities, OFFSETS_6, attract=ATTRACT, repel=REPEL)
    return time.process_time() - start, peak_bytes() - before, labels


def alone(*arguments):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(side, *arguments).result()


def same_partition(one, other):
    pairs = one.ravel().astype(np.int64) * (int(other.max()) + 1) + other.ravel()
    count = len(np.unique(pairs))
    return count == len(np.unique(one)) == len(np.unique(other))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--real")
    options = parser.parse_args()
    if options.real:
        affinities = open_affinities(options.real).read()
    else:
        affinities = made(options.size)
    voxels = affinities[0].size
    path = pathlib.Path(f"/tmp/bench_mutex_{os.getpid()}.npy")
    np.save(path, affinities)
    best = {}
    try:
        for _ in range(options.repeats):
            for name in ("nisbjax", "mwatershed"):
                seconds, memory, labels = alone(name, str(path))
                best[name] = min(best.get(name, (seconds, memory)), (seconds, memory))
                if name == "nisbjax":
                    ours = labels
    finally:
        path.unlink()
    print(f"{affinities.shape[1:]} voxels, {ours.max()} segments")
    for name, (seconds, memory) in best.items():
        print(
            f"{name:12} {seconds / voxels * 1e6:.2f} CPU-s a megavoxel, "
            f"{memory / voxels:.0f} bytes a voxel"
        )
    ratio = best["mwatershed"][0] / best["nisbjax"][0]
    import mwatershed

    offsets = [list(offset) for offset in OFFSETS_6]
    theirs = mwatershed.agglom(untied(weights_of(affinities)), offsets)
    print(f"ratio {ratio:.1f}; same partition: {same_partition(ours, theirs)}")


if __name__ == "__main__":
    main()
