"""Crops a second and CPU-seconds a crop, of the loader and of two plain readers.

    python tests/benchmarks/bench_loader.py

Reads 138^3 crops with labels (128^3 and ten voxels of context) from a compressed zarr
that it writes first, 384^3 voxels in chunks of 64^3 and of 128^3, noise as incompressible as
an EM image. Prints, in one run on the same crops: what blosc alone takes to decompress the
chunks that the crops touch, `Loader` without and with relabelling, zarr-python's reader,
and the share of time that a loop waits for data whose step sleeps as long as one on an
H100 computes.
"""

import argparse
import functools
import os
import resource
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from nisbjax.data.loader import Loader
from nisbjax.data.nisb import open_pairs
from nisbjax.volume import create_zarr

CROP = (138, 138, 138)
# MedNeXt-L/k3 on 2 x 128^3: 250,000 steps in 60 h on an A100 (nnU-Net issue 2996) are
# 0.86 s each; an estimate for an H100 is half of it.
H100_STEP_S = 0.4


def write_cube(root: str, chunk: int, size: int) -> None:
    draw = np.random.default_rng(0)
    folder = os.path.join(root, "train", "seed0", "data.zarr")
    fine = [np.arange(size) // 12 + draw.integers(0, 2, size) for _ in range(3)]
    cells = fine[0][:, None, None] * 4096 + fine[1][:, None] * 64 + fine[2]
    labels = (cells % 65521 + 1).astype(np.uint16)
    noise = draw.normal(0, 20, (size, size, size)).astype(np.float32)
    image = np.clip(110 + labels % 40 + noise, 0, 255).astype(np.uint8)
    for name, array in (("img", image[..., None]), ("seg", labels)):
        volume = create_zarr(
            os.path.join(folder, name),
            shape=array.shape,
            dtype=array.dtype,
            chunks=(chunk, chunk, chunk, 1)[: array.ndim],
            axes="xyzc"[: array.ndim],
        )
        volume.write(..., array)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(work, count: int) -> tuple[float, float]:
    """Wall and CPU seconds for one crop."""
    start, cpu = time.perf_counter(), cpu_seconds()
    work()
    return (time.perf_counter() - start) / count, (cpu_seconds() - cpu) / count


def chunks_of(array, box) -> list[tuple[int, ...]]:
    ranges = [
        range(s.start // c, -(-s.stop // c))
        for s, c in zip(box.slices, array.chunks[:3], strict=True)
    ]
    return [(x, y, z) for x in ranges[0] for y in ranges[1] for z in ranges[2]]


def decompress(root: str, boxes) -> None:
    """Reads and decodes the chunk files that the crops touch, and nothing else."""
    import numcodecs
    import zarr

    numcodecs.blosc.use_threads = False
    codec = numcodecs.Blosc()
    for box in boxes:
        for name in ("img", "seg"):
            path = os.path.join(root, "train/seed0/data.zarr", name)
            array = zarr.open_array(path, mode="r")
            for index in chunks_of(array, box):
                index = (*index, 0) if name == "img" else index
                with open(os.path.join(path, ".".join(map(str, index))), "rb") as file:
                    codec.decode(file.read())


def zarr_python(root: str, boxes) -> None:
    """The plain reader: image and labels sliced, cast as BANIS casts them."""
    import zarr

    arrays = [
        zarr.open_array(os.path.join(root, "train/seed0/data.zarr", name), mode="r")
        for name in ("img", "seg")
    ]
    for box in boxes:
        image, labels = (array[box.slices] for array in arrays)
        np.asarray(image, np.uint8), np.asarray(labels, np.int32)


def waiting(batches, steps: int, step_s: float) -> float:
    """Share of the loop's time spent waiting for data, after the first batch."""
    next(batches)
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        time.sleep(step_s)
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
    return waited / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, jax {jax.__version__}; crops of {CROP} with labels, batch 2")
    for chunk in (64, 128):
        with tempfile.TemporaryDirectory() as root:
            write_cube(root, chunk, args.size)
            pairs = open_pairs(
                root, "train/seed*/data.zarr/img", "train/seed*/data.zarr/seg"
            )

            def make(relabel: bool, pairs=pairs) -> Loader:
                return Loader(pairs, CROP, seed=0, global_batch=2, relabel=relabel)

            count = 2 * args.batches
            boxes = [
                make(False).draw(step, sample).box
                for step in range(args.batches)
                for sample in range(2)
            ]
            make(True).batch(0)  # compiles

            def read(relabel: bool, make=make) -> None:
                for batch in make(relabel).batches(0, args.batches):
                    jax.block_until_ready(batch)

            rows = {
                "blosc alone": functools.partial(decompress, root, boxes),
                "loader": functools.partial(read, False),
                "loader, relabel": functools.partial(read, True),
                "zarr-python": functools.partial(zarr_python, root, boxes),
            }
            times = {name: [] for name in rows}
            for _ in range(args.repeat):  # in turn, so that all see the same machine
                for name, work in rows.items():
                    times[name].append(measure(work, count))
            print(f"\nchunks of {chunk}^3   crops/s   CPU s a crop   (medians)")
            for name, values in times.items():
                wall = statistics.median(v[0] for v in values)
                cpu = statistics.median(v[1] for v in values)
                print(f"{name:18} {1 / wall:8.1f} {cpu:12.4f}")
            share = waiting(make(False).batches(), 25, H100_STEP_S)
            print(f"waits {share:.2%} of a loop with steps of {H100_STEP_S} s")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
