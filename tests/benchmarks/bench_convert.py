"""Conversion beside the `zarr` library copying the same array in the same run.

    python tests/benchmarks/bench_convert.py [--shape 512 512 512] [--repeats 3]

A uint8 image of smooth noise in zarr v2 (64^3, blosc with zstd) is converted into other
formats, and copied by zarr-python box by box (256^3, a few chunks at once, the same codec and
level into zarr v3), in turns in one process. The best of each counts. Ours makes the manifest
and its checksums besides. Target: no slower than zarr-python.
"""

import argparse
import pathlib
import shutil
import tempfile
import time

import numpy as np
import zarr
from scipy import ndimage

from nisbjax.config import base_config
from nisbjax.convert import stage
from nisbjax.store.volume import create_zarr

BOX = 256


def image(path: pathlib.Path, shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).random([-(-s // 8) for s in shape], np.float32)
    grey = ndimage.zoom(noise, 8, order=1)[tuple(map(slice, shape))]
    grain = np.random.default_rng(1).integers(0, 12, shape)
    values = (grey * 200 + grain).astype(np.uint8)
    volume = create_zarr(
        path, shape=shape, dtype="uint8", chunks=(64, 64, 64), axes="xyz"
    )
    volume.write(..., values)


def ours(source: pathlib.Path, path: pathlib.Path, **keys) -> None:
    config = base_config()
    config.convert.update({"kind": "image", "voxel_size_nm": (9, 9, 9), **keys})
    stage.run(config.convert, str(source), str(path))


def theirs(source: pathlib.Path, path: pathlib.Path) -> None:
    found = zarr.open_array(source, mode="r")
    blosc = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    made = zarr.create_array(
        path,
        shape=found.shape,
        dtype=found.dtype,
        chunks=(64, 64, 64),
        compressors=blosc,
        zarr_format=3,
    )
    for corner in np.ndindex(*(-(-s // BOX) for s in found.shape)):
        index = tuple(slice(BOX * c, BOX * c + BOX) for c in corner)
        made[index] = found[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 512))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    shape = tuple(arguments.shape)
    jobs = {
        "zarr-python, to zarr v3": theirs,
        "ours, to zarr v3": lambda a, b: ours(a, b, format="zarr3"),
        "ours, to zarr v2": lambda a, b: ours(a, b, format="zarr2"),
        "ours, to precomputed": lambda a, b: ours(a, b, format="precomputed"),
        "ours, to N5": lambda a, b: ours(a, b, format="n5"),
        "ours, to OME-Zarr 0.4 with 4 scales": lambda a, b: ours(
            a, b, format="ome-zarr-0.4", downsample=4
        ),
    }
    best = dict.fromkeys(jobs, float("inf"))
    with tempfile.TemporaryDirectory() as name:
        source, path = pathlib.Path(name) / "em.zarr", pathlib.Path(name) / "out"
        image(source, shape)
        for _ in range(arguments.repeats):
            for title, job in jobs.items():
                shutil.rmtree(path, ignore_errors=True)
                began = time.perf_counter()
                job(source, path)
                best[title] = min(best[title], time.perf_counter() - began)
    size = np.prod(shape) / 1e6
    first = best["zarr-python, to zarr v3"]
    for title, seconds in best.items():
        print(
            f"{title:38} {seconds:6.2f} s {size / seconds:7.0f} MB/s "
            f"{seconds / first:5.2f} of zarr-python's time"
        )


if __name__ == "__main__":
    main()
