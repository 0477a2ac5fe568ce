"""Decoding against the reference's algorithm: seconds, ratio, extra memory, exactness.

    python tests/benchmarks/bench_decode.py [--size 512] [--repeats 3] [--real raw.zarr]
        [--parts memory streamed sweep]

The yardstick is BANIS's decoder, written again: threshold into booleans, then flood from
each foreground voxel in C order with a stack, in one numba kernel. Both are timed in turns
in one process and the best of each counts. Affinities are the edges of real labels
(`../shared/data/pinky40`, mirrored to the size; else of random cells) plus noise.

The streamed decoder is measured against the one in memory, both from a zarr volume to
another, and the sweep against one decode, in memory and from zarr to zarr.
"""

import argparse
import pathlib
import tempfile
import threading
import time

import numba
import numpy as np
import psutil
from scipy import ndimage

from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.decode.thresholds.sweep import nodes_by_threshold
from nisbjax.geometry import Box
from nisbjax.store.volume import create_zarr, open_labels, open_volume

PINKY = (
    pathlib.Path(__file__).parents[3] / "shared/data/pinky40/val/seed0/data.zarr/seg"
)
THRESHOLDS = (0.55, 0.75)


@numba.njit(cache=True)
def flood(above):
    """Labels of boolean affinities [3 x y z], voxel by voxel with a stack."""
    _, nx, ny, nz = above.shape
    seen = np.zeros((nx, ny, nz), np.bool_)
    labels = np.zeros((nx, ny, nz), np.uint32)
    label = np.uint32(0)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if seen[i, j, k] or not above[:, i, j, k].any():
                    continue
                label += np.uint32(1)
                seen[i, j, k] = True
                stack = [(i, j, k)]
                while stack:
                    x, y, z = stack.pop()
                    labels[x, y, z] = label
                    if x + 1 < nx and above[0, x, y, z] and not seen[x + 1, y, z]:
                        seen[x + 1, y, z] = True
                        stack.append((x + 1, y, z))
                    if y + 1 < ny and above[1, x, y, z] and not seen[x, y + 1, z]:
                        seen[x, y + 1, z] = True
                        stack.append((x, y + 1, z))
                    if z + 1 < nz and above[2, x, y, z] and not seen[x, y, z + 1]:
                        seen[x, y, z + 1] = True
                        stack.append((x, y, z + 1))
                    if x > 0 and above[0, x - 1, y, z] and not seen[x - 1, y, z]:
                        seen[x - 1, y, z] = True
                        stack.append((x - 1, y, z))
                    if y > 0 and above[1, x, y - 1, z] and not seen[x, y - 1, z]:
                        seen[x, y - 1, z] = True
                        stack.append((x, y - 1, z))
                    if z > 0 and above[2, x, y, z - 1] and not seen[x, y, z - 1]:
                        seen[x, y, z - 1] = True
                        stack.append((x, y, z - 1))
    return labels


def reference(affinities, threshold):
    return flood(affinities > np.float16(threshold))


def make_labels(size, rng):
    """Labels of `size`^3 voxels: real ones mirrored, or the cells of random points."""
    if PINKY.exists():
        labels = open_labels(PINKY).read()
        pad = [(0, max(0, size - s)) for s in labels.shape]
        return np.pad(labels, pad, mode="symmetric")[:size, :size, :size]
    points = np.zeros((size,) * 3, bool)
    points[tuple(rng.integers(0, size, (3, size**3 // 30000)))] = True
    marked = np.cumsum(points.ravel()).reshape(points.shape) * points
    nearest = ndimage.distance_transform_edt(
        ~points, return_distances=False, return_indices=True
    )
    return marked[tuple(nearest)]


def make_affinities(labels, kind, rng):
    """.8 on edges inside of a segment, .3 elsewhere, with noise of deviation .15."""
    shape = labels.shape
    result = np.empty((3, *shape), np.float16)
    for axis in range(3):
        for x in range(0, shape[0], 64):
            part = labels[x : x + 65]
            after = np.roll(part, -1, axis)[: min(64, len(part))]
            same = (part[: len(after)] == after) & (after > 0)
            noise = rng.standard_normal(same.shape, np.float32)
            if kind == "correlated":
                noise = ndimage.gaussian_filter(noise, 2)
                noise /= noise.std()
            value = np.where(same, np.float32(0.8), np.float32(0.3))
            result[axis, x : x + 64] = np.clip(value + 0.15 * noise, 0, 1)
    return result


class PeakMemory:
    """Resident bytes beyond those at the start, sampled every 2 ms."""

    def __enter__(self):
        self._process = psutil.Process()
        self._start = self._process.memory_info().rss
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self):
        while not self._stop.wait(0.002):
            rss = self._process.memory_info().rss
            self.bytes = max(self.bytes, rss - self._start)

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def seconds(function, *arguments):
    """Elapsed and processor seconds (of all threads; steadier on a busy machine)."""
    began, used = time.perf_counter(), time.process_time()
    result = function(*arguments)
    taken = time.perf_counter() - began, time.process_time() - used
    return np.array(taken), result


def compare(name, affinities, repeats):
    for threshold in THRESHOLDS:
        ours, theirs = [], []
        for _ in range(repeats):
            taken, expected = seconds(reference, affinities, threshold)
            theirs.append(taken)
            for _ in range(2):
                taken, labels = seconds(label_affinities, affinities, threshold)
                ours.append(taken)
        equal = np.array_equal(labels, expected)
        del labels, expected
        with PeakMemory() as memory:
            labels = label_affinities(affinities, threshold)
        (theirs, cpu_theirs), (ours, cpu_ours) = np.min(theirs, 0), np.min(ours, 0)
        print(
            f"{name:12} {threshold:.2f}  BANIS {theirs:6.2f} s  ours {ours:5.2f} s  "
            f"ratio {theirs / ours:5.1f} ({cpu_theirs / cpu_ours:.1f} in CPU seconds)  "
            f"extra memory {memory.bytes / labels.nbytes:.3f} label arrays  "
            f"labels {labels.max()}  equal to the flood: {equal}",
            flush=True,
        )


def compare_streamed(name, affinities, repeats, memory_gb):
    """From zarr to zarr: whole volume in memory, in boxes, and ten thresholds at once."""
    rng = np.random.default_rng(1)
    shape = affinities.shape[1:]
    positions = np.stack([rng.integers(0, s, 20000) for s in shape], axis=1)
    grid = np.linspace(0.4, 0.94, 10).tolist()
    chunks = tuple(min(128, s) for s in shape)
    with tempfile.TemporaryDirectory() as folder:
        stored = create_zarr(
            f"{folder}/raw.zarr",
            shape=affinities.shape,
            dtype=np.float16,
            chunks=(1, *chunks),
            axes="cxyz",
        )
        stored.write(Box.whole(shape), affinities)
        taken = {"in memory": [], "streamed": [], "ten thresholds": []}
        for repeat in range(repeats):
            whole, boxes = (
                create_zarr(
                    f"{folder}/{kind}{repeat}.zarr",
                    shape=shape,
                    dtype=np.uint32,
                    chunks=chunks,
                    axes="xyz",
                )
                for kind in ("whole", "boxes")
            )

            def in_memory(target=whole):
                labels = label_affinities(stored.read(), 0.75)
                target.write(Box.whole(shape), labels)

            def streamed(target=boxes):
                label_volume(stored, target, 0.75, memory_gb=memory_gb)

            def swept():
                nodes_by_threshold(stored, positions, grid, memory_gb=memory_gb)

            for kind, work in zip(taken, (in_memory, streamed, swept), strict=True):
                taken[kind].append(seconds(work)[0])
            equal = np.array_equal(whole.read(), boxes.read())
    best = {kind: np.min(times, 0) for kind, times in taken.items()}
    times = ", ".join(f"{k} {t:.2f} s ({c:.2f} CPU s)" for k, (t, c) in best.items())
    (whole, cpu_whole), (boxes, cpu_boxes), (sweep, cpu_sweep) = best.values()
    print(
        f"{name:12} zarr to zarr, memory_gb={memory_gb:g}: {times}; streamed throughput "
        f"{whole / boxes:.2f} of that in memory ({cpu_whole / cpu_boxes:.2f} by CPU), "
        f"ten thresholds {sweep / boxes:.2f} streamed decodes "
        f"({cpu_sweep / cpu_boxes:.2f} by CPU); equal: {equal}",
        flush=True,
    )


def compare_sweep(name, affinities, repeats):
    rng = np.random.default_rng(1)
    shape = affinities.shape[1:]
    positions = np.stack([rng.integers(0, s, 20000) for s in shape], axis=1)
    grids = {n: np.linspace(0.4, 0.94, n).tolist() for n in (1, 10, 50)}
    best = {n: np.inf for n in grids}
    decode = np.inf
    for _ in range(repeats):
        decode = min(decode, seconds(label_affinities, affinities, 0.75)[0][1])
        for n, grid in grids.items():
            taken, _ = seconds(nodes_by_threshold, affinities, positions, grid)
            best[n] = min(best[n], taken[1])
    times = ", ".join(f"{n}: {t:.2f} s ({t / decode:.1f}x)" for n, t in best.items())
    print(
        f"{name:12} sweep of thresholds, beside one decode in memory in {decode:.2f} "
        f"CPU s: {times}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory_gb", type=float, default=4)
    parser.add_argument("--real", nargs="*", default=[], help="predictions [c x y z]")
    parser.add_argument("--only-real", action="store_true")
    parts = ("memory", "streamed", "sweep")
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    small = make_affinities(rng.integers(0, 3, (16, 16, 16)), "independent", rng)
    reference(small, 0.5), label_affinities(small, 0.5)  # compiles them
    nodes_by_threshold(small, np.zeros((1, 3), int), (0.5,))

    def measure(name, affinities):
        if "memory" in options.parts:
            compare(name, affinities, options.repeats)
        if "sweep" in options.parts:
            compare_sweep(name, affinities, options.repeats)
        if "streamed" in options.parts:
            compare_streamed(name, affinities, options.repeats, options.memory_gb)

    for number, path in enumerate(options.real):
        real = open_volume(path, axes="cxyz").read()[:3].astype(np.float16)
        measure(f"real {number}", real)
    if not options.only_real:
        labels = make_labels(options.size, rng)
        for kind in ("independent", "correlated"):
            measure(kind, make_affinities(labels, kind, rng))


if __name__ == "__main__":
    main()
