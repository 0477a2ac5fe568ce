"""What checksums cost the stages that compute and compare them.

    python tests/benchmarks/bench_checksums.py [--shape 256 256 256] [--repeats 5]

Affinities (float16, chunks as predictions have them) with a finished manifest are scanned
by QC and decoded, zarr to zarr, with each chunk compared before it is believed and without,
in turns in one process; and a slab is written with and without the facts on its chunks.
The best of each counts, by the CPU's clock. Target: 3 % of the stage.
"""

import argparse
import pathlib
import shutil
import tempfile
import time

import numpy as np

from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.geometry import Box
from nisbjax.qc import statistics
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import create_zarr, open_affinities

CHUNKS = (1, 64, 128, 128)


def affinities(folder: pathlib.Path, shape: tuple[int, int, int]) -> pathlib.Path:
    """Noise of some correlation through a sigmoid, with its manifest."""
    path = folder / "raw.zarr"
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 3, (3, *(-(-s // 4) for s in shape)))
    values = coarse.repeat(4, 1).repeat(4, 2).repeat(4, 3)[:, *map(slice, shape)]
    values = 1 / (1 + np.exp(-values - rng.normal(0, 0.3, values.shape)))
    with Manifest(path, {"what": "noise"}) as manifest:
        volume = create_zarr(
            path, shape=values.shape, dtype="float16", chunks=CHUNKS, axes="cxyz"
        )
        volume.write(..., values.astype(np.float16))
        box = Box.whole(shape)
        manifest.record(str(box), volume.chunk_facts(box, path))
        manifest.finish()
    return path


def opened(path: pathlib.Path, *, compared: bool):
    volume = open_affinities(path)
    assert volume.guard is not None
    if not compared:
        volume.guard = None
    return volume


def scan(path: pathlib.Path, compared: bool) -> None:
    statistics.scan(opened(path, compared=compared))


def decode(path: pathlib.Path, compared: bool) -> None:
    output = path.with_name("labels.zarr")
    shutil.rmtree(output, ignore_errors=True)
    volume = opened(path, compared=compared)
    made = create_zarr(
        output,
        shape=volume.spatial_shape,
        dtype="uint32",
        chunks=CHUNKS[1:],
        axes="xyz",
    )
    label_volume(volume, made, 0.6, memory_gb=2.0)


def write(path: pathlib.Path, compared: bool) -> None:
    """A slab as the predictor writes it."""
    values = np.asarray(open_affinities(path).read(np.s_[:, :64]))
    output = path.with_name("slab.zarr")
    shutil.rmtree(output, ignore_errors=True)
    made = create_zarr(
        output, shape=values.shape, dtype="float16", chunks=CHUNKS, axes="cxyz"
    )
    made.write(..., values)
    if compared:
        made.chunk_facts(Box.whole(made.spatial_shape), output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 256))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = affinities(pathlib.Path(folder), tuple(given.shape))
        size = sum(f.stat().st_size for f in path.iterdir())
        print(f"{tuple(given.shape)} float16 x 3, {size / 1e6:.0f} MB stored")
        print("stage     with [CPU s]  without  with / without")
        for stage in (scan, decode, write):
            best = {True: np.inf, False: np.inf}
            stage(path, True)  # compiled, and in the page cache
            for _ in range(given.repeats):
                for compared in (True, False):
                    started = time.process_time()
                    stage(path, compared)
                    best[compared] = min(best[compared], time.process_time() - started)
            share = best[True] / best[False]
            print(
                f"{stage.__name__:<9} {best[True]:12.3f} {best[False]:8.3f} {share:15.3f}"
            )


if __name__ == "__main__":
    main()
