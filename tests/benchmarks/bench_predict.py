"""Prediction without a network's work: windows a second, and CPU time, of the path alone.

    python tests/benchmarks/bench_predict.py [--shape 320 384 384] [--window 128]
        [--channels 3 6] [--batch 4] [--repeats 3]

From zarr to zarr in float16, with a stub for the network: logits are multiples of the image.
After it each part alone, over the same volume: windows read and inflated, batches sent, windows
added, slabs rounded and received, slabs compressed and written. All in one process, the best of
each; CPU time is the whole process's, of all its threads.
"""

import argparse
import os
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from nisbjax.geometry import Box
from nisbjax.infer.blend import window_weights
from nisbjax.infer.conversion import Conversion
from nisbjax.infer.predict import predict_volume
from nisbjax.infer.stage import COMPRESSOR
from nisbjax.infer.sums import Sums
from nisbjax.infer.tiles import slabs_of
from nisbjax.infer.windows import Grid, read_ahead
from nisbjax.parallel.environment import use_huge_pages
from nisbjax.store.volume import Volume, create_zarr

CHUNK = (64, 128, 128)


def stub(params, images):
    """Six logits [b x y z 6], no more work than it takes to write them."""
    return jnp.concatenate([images * k - params for k in range(1, 7)], -1)


def make_image(path: pathlib.Path, shape: tuple[int, int, int]) -> Volume:
    """Smooth noise in bytes, which compresses about as electron microscopy does."""
    image = create_zarr(
        path, shape=(*shape, 1), dtype="uint8", chunks=(64, 64, 64, 1), axes="xyzc"
    )
    draw = np.random.default_rng(0)
    for x in range(0, shape[0], 64):
        size = (min(64, shape[0] - x), *shape[1:])
        noise = ndimage.gaussian_filter(draw.standard_normal(size, np.float32), 1.5)
        values = np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)
        image.write(Box((x, 0, 0), (x + size[0], *shape[1:])), values[..., None])
    return image


def timed(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds and CPU-seconds of the best of several runs."""
    best = (float("inf"), float("inf"))
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, (seconds, cpu))
    return best


def parts(
    image: Volume, output: Volume, grid: Grid, batch: int
) -> dict[str, Callable[[], object]]:
    """What a prediction consists of beside its network, each over the whole volume."""
    channels, whole = output.shape[0], Box.whole(grid.shape)
    starts = grid.touching(whole)
    draw = np.random.default_rng(0)
    images = np.zeros((batch, *grid.window, 1), np.uint8)

    def read():
        with ThreadPoolExecutor(1) as reader:
            return sum(len(group) for group in read_ahead(reader, image, grid, whole))

    def send():
        for _ in range(0, len(starts), batch):
            jax.block_until_ready(jax.device_put(images))

    weights = jax.device_put(window_weights(grid.window))
    sums = Sums(whole, CHUNK[0], grid, weights, channels=channels)
    predicted = jax.device_put(draw.random((1, channels, *grid.window), np.float32))

    def add():
        for start in starts:
            sums.add(start, predicted, 0)
        sums.wait()

    slabs = slabs_of(whole, CHUNK[0])

    def take():
        for box in slabs:
            sums.add((box.start[0], *starts[0][1:]), predicted, 0)
            np.asarray(sums.take(box, output.dtype))

    written = output.read()

    def write():
        for box in slabs:
            output.write(box, written[(slice(None), *box.slices)])

    return {
        "read and inflate": read,
        "send": send,
        "add windows": add,
        "round, receive": take,
        "compress, write": write,
    }


def measure(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    grid = Grid(tuple(arguments.shape), (arguments.window,) * 3)
    image = make_image(folder / "image", grid.shape)
    print(
        f"{os.cpu_count()} cores, {jax.devices()}, {grid.count} windows of {grid.window}"
    )
    for channels in arguments.channels:
        output = create_zarr(
            folder / f"raw{channels}",
            shape=(channels, *grid.shape),
            dtype="float16",
            chunks=(1, *CHUNK),
            axes="cxyz",
            compressor=COMPRESSOR,
        )

        def whole(output=output, channels=channels):
            predict_volume(
                stub,
                np.float32(0.5),
                image,
                output,
                grid,
                batch_per_device=arguments.batch,
                memory_gb=arguments.memory_gb,
                conversion=Conversion(channels=tuple(range(channels))),
            )

        whole()  # compiles
        rows = {"zarr to zarr": whole}
        rows |= parts(image, output, grid, arguments.batch)
        print(f"{channels} channels{'':>10} windows/s  CPU ms a window")
        for name, work in rows.items():
            seconds, cpu = timed(work, arguments.repeats)
            rate, each = grid.count / seconds, 1e3 * cpu / grid.count
            print(f"{name:>20} {rate:9.1f} {each:16.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(320, 384, 384))
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--channels", type=int, nargs="+", default=(3, 6))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--memory_gb", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", default="", help="folder for the files, used again")
    arguments = parser.parse_args()
    use_huge_pages()  # as `nisbjax.launch` does
    with tempfile.TemporaryDirectory() as temporary:
        measure(arguments, pathlib.Path(arguments.keep or temporary))


if __name__ == "__main__":
    main()
