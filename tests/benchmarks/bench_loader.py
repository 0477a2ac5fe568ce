"""Crops a second and CPU-seconds a crop, of the loader and of two plain readers.

    python tests/benchmarks/bench_loader.py

Reads 138^3 crops with labels (128^3 and ten voxels of context) from a compressed zarr
that it writes first, 384^3 voxels in chunks of 64^3 and of 128^3, noise as incompressible as
an EM image. Prints, in one run on the same crops: what blosc alone takes to decompress the
chunks that the crops touch, `Loader` without and with relabelling, zarr-python's reader,
and the share of time that a loop waits for data whose step sleeps as long as one on an
H100 computes.

Then a crop's whole way to targets, from memory: BANIS's work (`data.py`: components,
turns, slices, intensity, noise, MONAI's affine, affinities, all on the CPU, written anew;
torch does the affine, and our own kernel stands in for cc3d), beside what the loader does
for a crop here. What BANIS does on the CPU is a part of our compiled step; its cost on a
CPU is printed too, and is the device's on a GPU.
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

from nisbjax.data import nisb, targets
from nisbjax.data.augment import Augmentation
from nisbjax.data.labels import relabel_components
from nisbjax.data.loader import Loader
from nisbjax.data.nisb import open_pairs
from nisbjax.offsets import OFFSETS_6
from nisbjax.store.volume import create_zarr

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


def banis_work(image, labels, draw: np.random.Generator) -> tuple:
    """What BANIS's `data.py` does to one crop in a worker, after reading it.

    Args:
      image: uint8 [x y z c].
      labels: [x y z].
      draw: random numbers.

    Returns:
      float16 image, int8 affinities.
    """
    labels = relabel_components(labels)
    image = np.moveaxis(image, -1, 0).astype(np.float32) / 255
    order = draw.permutation(3)
    image = image.transpose(0, *(1 + order))
    labels = labels.transpose(order)
    for a, b in ((1, 2), (0, 2), (0, 1)):
        k = int(draw.integers(4))
        image = np.rot90(image, k, (1 + a, 1 + b))
        labels = np.rot90(labels, k, (a, b))
    for axis in range(3):
        if draw.random() < 0.5:
            image, labels = np.flip(image, 1 + axis), np.flip(labels, axis)
    image, labels = image.copy(), labels.copy()
    if draw.random() < 0.5:
        slices = np.moveaxis(image, 1 + int(draw.integers(3)), 0)
        slices[draw.random(len(slices)) < 0.05] = 0
    if draw.random() < 0.5:
        slices = np.moveaxis(image, 1 + int(draw.integers(3)), 0)
        for index in np.nonzero(draw.random(len(slices)) < 0.05)[0]:
            shift = tuple(draw.integers(-10, 11, 2))
            slices[index] = np.roll(slices[index], shift, (1, 2))
    if draw.random() < 0.5:
        image = image * draw.uniform(0.9, 1.1) + draw.uniform(-0.1, 0.1)
    if draw.random() < 0.5:
        noise = draw.normal(0, 1, image.shape)
        image = image + draw.uniform(0, 0.5) * noise
    if draw.random() < 0.5:
        image, labels = torch_affine(image, labels, draw)
    affinities = np.zeros((len(OFFSETS_6), *labels.shape), np.int8)
    affinities[:] = -1
    for channel, offset in enumerate(OFFSETS_6):
        here = tuple(slice(0, n - o) for n, o in zip(labels.shape, offset, strict=True))
        there = tuple(slice(o, None) for o in offset)
        affinities[channel][here] = labels[here] == labels[there]
    affinities[:, labels == 0] = 0
    return image.astype(np.float16), affinities


def torch_affine(image, labels, draw: np.random.Generator) -> tuple:
    """A random affine by torch's `grid_sample`, as MONAI's `RandAffine` calls it."""
    import torch

    matrix = np.linalg.qr(draw.normal(size=(3, 3)))[0] @ np.diag(
        draw.uniform(0.8, 1.2, 3)
    )
    matrix = matrix + draw.uniform(-0.5, 0.5, (3, 3)) * (1 - np.eye(3))
    theta = torch.tensor(
        np.concatenate([matrix, np.zeros((3, 1))], 1), dtype=torch.float32
    )
    shape = (1, 1, *labels.shape)
    grid = torch.nn.functional.affine_grid(
        theta[None], list(shape), align_corners=False
    )
    sample = functools.partial(
        torch.nn.functional.grid_sample,
        grid=grid,
        padding_mode="reflection",
        align_corners=False,
    )
    image = torch.as_tensor(np.ascontiguousarray(image, np.float32))[None]
    ids = torch.as_tensor(labels.astype(np.float32))[None, None]
    moved = sample(ids, mode="nearest")[0, 0].numpy().astype(np.int32)
    return sample(image, mode="bilinear")[0].numpy(), moved


def whole_way(root: str, repeat: int) -> None:
    """CPU seconds from a crop in memory to its targets, in BANIS's way and in ours."""
    pattern = "train/seed*/data.zarr/{}"
    pairs = open_pairs(root, pattern.format("img"), pattern.format("seg"))
    pairs = nisb.in_memory(pairs, 4.0)
    augmentation = Augmentation(order="banis", shear_coefficients=6)
    rule = targets.ExampleRule((128, 128, 128), augmentation=augmentation)
    loader = Loader(pairs, CROP, seed=0, global_batch=2, relabel=True)
    on_host = loader.on_host(0)
    make = jax.jit(functools.partial(targets.examples, rule=rule, training=True))
    batch = loader.batch(0)
    jax.block_until_ready(make(batch, step=0))  # compiles
    draw = np.random.default_rng(0)

    def banis() -> None:
        for _ in range(8):
            for image, labels in zip(on_host.images, on_host.labels, strict=True):
                banis_work(image[:128, :128, :128], labels[:128, :128, :128], draw)

    def ours() -> None:
        for step in range(8):
            jax.block_until_ready(loader.batch(step))

    def examples() -> None:
        for step in range(8):
            jax.block_until_ready(make(batch, step=step))

    rows = {"loader, relabel": ours, "examples on this CPU": examples}
    try:
        import torch

        torch.set_num_threads(1)
        rows = {"BANIS's work": banis, **rows}
    except ImportError:
        print("\nno torch here: BANIS's affine cannot be timed")
    print("\nfrom memory to targets      CPU s a crop (medians)")
    times = {name: [] for name in rows}
    for _ in range(repeat):
        for name, work in rows.items():
            times[name].append(measure(work, 16)[1])
    for name, values in times.items():
        print(f"{name:24} {statistics.median(values):14.4f}")


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
            if chunk == 128:
                whole_way(root, args.repeat)


if __name__ == "__main__":
    main()
