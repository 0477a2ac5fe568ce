"""Trials of the chain from tables against decodes: CPU-seconds a megavoxel, bytes, sameness.

    python tests/benchmarks/bench_trials.py [--real raw.zarr] [--tiles 2 2 1] [--size 160]

Tables are made for the default ranges of `attract` and `repel`, then trials and decodes of
the same points run in turns in this process; the best of each counts. Nodes are every
500th voxel, and each trial's segments at them are compared with the decode's. Without
affinities of one's own they are those of `bench_mutex`.
"""

import argparse
import dataclasses
import pathlib
import tempfile
import time

import bench_mutex
import numpy as np

from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.offsets import OFFSETS_6
from nisbjax.store.volume import create_zarr, from_array, open_affinities
from nisbjax.tune.chain_tables import TableMaker
from nisbjax.tune.chain_trial import ChainTrials

RANGES = {"attract": (0.0, 0.4), "repel": (0.2, 1.0)}
POINTS = ((0.2, 0.8), (0.0, 0.2), (0.4, 1.0))


def seconds(work):
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def partition(segments):
    """Segments by the first node of each; -1 on background."""
    _, first, which = np.unique(segments, return_index=True, return_inverse=True)
    return np.where(segments == 0, -1, first[which])


def warm(affinities, folder):
    """Compiles all kernels on a corner."""
    corner = from_array(affinities[:, :40, :40, :40].copy(), "cxyz")
    nodes = np.argwhere(np.ones(corner.spatial_shape))
    parameters, edges = ChainParameters(), MaskedEdges()
    maker = TableMaker(corner, edges, nodes, parameters, RANGES, (20, 40, 40))
    maker.make(folder, 1)
    ChainTrials(folder, maker.grid, len(nodes), corner.dtype, 1).segments(parameters)
    decoded(corner, parameters)


def decoded(volume, parameters):
    labels = np.zeros(volume.spatial_shape, np.uint32)
    output = from_array(labels, "xyz")
    chain_volume(volume, output, parameters=parameters, memory_gb=4.0)
    return labels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--real")
    parser.add_argument("--tiles", type=int, nargs=3, default=(1, 1, 1))
    parser.add_argument("--size", type=int, default=160)
    options = parser.parse_args()
    if options.real:
        affinities = np.asarray(open_affinities(options.real).read())
    else:
        affinities = bench_mutex.made(options.size)
    affinities = np.tile(affinities, (1, *options.tiles))
    megavoxels = affinities[0].size / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        warm(affinities, place / "warm")
        attributes = {"offsets": [list(offset) for offset in OFFSETS_6]}
        create_zarr(
            place / "raw.zarr",
            shape=affinities.shape,
            dtype=affinities.dtype,
            chunks=(1, 64, 128, 128),
            axes="cxyz",
            attributes=attributes,
        ).write(..., affinities)
        del affinities
        volume = open_affinities(place / "raw.zarr")
        every = np.arange(0, np.prod(volume.spatial_shape), 500)
        nodes = np.stack(np.unravel_index(every, volume.spatial_shape), axis=1)
        parameters = ChainParameters()
        maker = TableMaker(volume, MaskedEdges(), nodes, parameters, RANGES)
        made, _ = seconds(lambda: maker.make(place / "tables", 1))
        size = sum(path.stat().st_size for path in (place / "tables").iterdir())
        trials = ChainTrials(
            place / "tables", maker.grid, len(nodes), volume.dtype, threads=1
        )
        of_trial, of_decode = [], []
        for attract, repel in POINTS:
            point = dataclasses.replace(parameters, attract=attract, repel=repel)
            took, found = seconds(lambda p=point: trials.segments(p))
            of_trial.append(took)
            took, labels = seconds(lambda p=point: decoded(volume, p))
            of_decode.append(took)
            assert (partition(found) == partition(labels[tuple(nodes.T)])).all()
    print(
        f"{volume.spatial_shape} voxels, {len(maker.grid.boxes)} boxes; CPU-s a megavoxel: "
        f"tables {made / megavoxels:.2f} ({size / megavoxels / 1e6:.1f} bytes a voxel), "
        f"a trial {min(of_trial) / megavoxels:.3f}, a decode "
        f"{min(of_decode) / megavoxels:.3f}: ratio "
        f"{sum(of_decode) / sum(of_trial):.1f} over {len(POINTS)} points, all the same"
    )


if __name__ == "__main__":
    main()
