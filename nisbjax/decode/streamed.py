"""Labels of a volume that is larger than memory, equal to those made in memory.

Every box of chunks is read and labelled once; then the seams are joined in layers; then the
provisional labels, kept compressed in a scratch folder beside the output, are written with
their final numbers. The output is written once: relabelling it in place could not be
resumed after a kill, and a lazily relabelled view would leave every later reader with a
table as large as the number of fragments. PyTC's streamed decoder needs a halo, numbers by
chunk, and applies no mask.
"""

import dataclasses
import math
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from isal import isal_zlib

from nisbjax.decode import numbering
from nisbjax.decode.boxes import BoxDecoder, Record
from nisbjax.decode.connected_components import (
    check_options,
    edge_range,
)
from nisbjax.decode.grid import AT_ONCE, Grid, choose_box
from nisbjax.decode.keep import ImageSource, MaskSource, keep_mask
from nisbjax.decode.seams import Seams
from nisbjax.decode.statistics import Statistics
from nisbjax.errors import InputError
from nisbjax.parallel import cluster
from nisbjax.store.manifest import Manifest, path_beside
from nisbjax.store.volume import Volume, create_zarr
from nisbjax.typing import Triple

_FAST = {"id": "blosc", "cname": "lz4", "clevel": 1, "shuffle": 2}


def label_volume(
    affinities: Volume,
    output: Volume,
    threshold: float,
    *,
    memory_gb: float,
    mask: MaskSource | None = None,
    image: ImageSource | None = None,
    mask_edges: str = "both",
    edge_offset: int = 0,
    min_size: int = 0,
    threads: int | None = None,
    box_shape: Triple | None = None,
    scratch: str | os.PathLike | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    kind: str = "threads",
    workers: int = 0,
    address: str = "",
) -> Statistics:
    """Decodes `affinities` into `output`: the labels of `label_affinities`, box by box.

    Args:
      affinities: [c x y z], c >= 3; float16, float32, or uint8 meaning value / 255.
      output: [x y z], an unsigned type that holds the number of labels.
      threshold, mask, image, mask_edges, edge_offset: as `label_affinities`; mask and image
        may be volumes on disk.
      memory_gb: for everything that is held at once; in each worker of a cluster.
      min_size: segments of fewer voxels become background before numbering.
      threads: at work on a box; where None, the cores there are for it.
      box_shape: instead of what memory allows; the labels do not depend on it.
      scratch: folder for provisional labels and tables, about the size of the output;
        beside the output where None. Removed at the end.
      fingerprint: of the inputs, noted in the manifest; an interrupted decode goes on only
        with equal inputs and settings.
      kind, workers, address: who decodes boxes, as `cluster.map_boxes`.

    Returns:
      Number and sizes of the segments, and the share of background.

    Raises:
      InputError: as `label_affinities`; shapes that differ; an output type that cannot hold
        the labels; or an output that belongs to other inputs or settings.
    """
    began = time.monotonic()
    shape = affinities.spatial_shape
    check_affinities(affinities, threshold, memory_gb=memory_gb)
    _check(affinities, output, edge_offset, mask_edges)
    keep_mask(mask, image, shape)
    # Affinities and what they are read from, labels twice, a mask and its image, tables.
    need = 4.5 * affinities.dtype.itemsize + 12
    grid = Grid(
        shape, box_shape or choose_box(affinities, need, memory_gb, output=output)
    )
    settings = {
        "threshold": threshold,
        "edge_offset": edge_offset,
        "mask_edges": mask_edges,
        "min_size": min_size,
        **(fingerprint or {}),
    }
    with tempfile.TemporaryDirectory() as temporary:
        on_disk = pathlib.Path(output.source).is_dir()
        beside = path_beside(output.source if on_disk else f"{temporary}/labels")
        folder = pathlib.Path(scratch or f"{beside}.scratch")
        with Manifest(beside, settings) as manifest:
            if manifest.finished:
                return Statistics(**manifest.finish_facts)
            if manifest.done("grid"):
                if not folder.exists():
                    raise InputError(
                        f"scratch folder {folder} is gone, and an unfinished decode needs "
                        f"it; remove {beside} to begin anew"
                    )
                grid = Grid(shape, tuple(manifest.facts("grid")["box_shape"]))
            else:
                manifest.record("grid", "", box_shape=list(grid.box_shape))
            provisional = _provisional(folder, output, grid)
            decoder = BoxDecoder(
                affinities,
                provisional,
                folder,
                grid,
                threshold,
                edge_offset,
                mask,
                image,
                mask_edges,
                threads or _threads(kind, workers),
            )
            # Threads read and write beside a box that is being labelled.
            count = AT_ONCE if kind == "threads" else workers
            with cluster.Workers(kind, count, address) as team:
                _record_all(decoder, "decode", grid, manifest, team)
                seams = Seams(folder, grid, edge_offset)
                statistics = seams.number(min_size, team.map)
                _check_labels(output, statistics.segments)
                relabeler = Relabeler(provisional, output, folder, grid)
                _record_all(relabeler, "relabel", grid, manifest, team)
            manifest.finish(**dataclasses.asdict(statistics))
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    logging.info(
        "decoded %s at threshold %g into %s: %d segments, %.1f %% background, "
        "%d boxes, %.1f s",
        affinities.source,
        threshold,
        output.source,
        statistics.segments,
        100 * statistics.attributes()["background"],
        len(grid.boxes),
        seconds,
    )
    return statistics


@dataclasses.dataclass(frozen=True)
class Relabeler:
    """`relabeler(index)` writes the final labels of one box."""

    provisional: Volume
    output: Volume
    folder: pathlib.Path
    grid: Grid

    def __call__(self, index: int) -> dict[str, str]:
        box = self.grid.boxes[index]
        record = Record(self.folder, self.grid, index)
        table = np.load(self.folder / f"{index}.table.npy").astype(self.output.dtype)
        labels = self.provisional.read(box)
        result = np.empty(box.shape, self.output.dtype)
        numbering.relabel(labels.reshape(-1), table, result.reshape(-1))
        result.reshape(-1)[record.orphans] = table[len(record.first) :]
        self.output.write(box, result)
        return {"checksum": f"{isal_zlib.crc32(result):08x}"}


def _threads(kind: str, workers: int) -> int | None:
    """Of one box: a share of this machine's cores, or all of a cluster's worker's."""
    if kind == "dask":
        return None
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // (AT_ONCE if kind == "threads" else workers or cores))


def _record_all(work, name, grid, manifest, team) -> None:
    """Has the boxes done that the manifest does not have yet, and notes them."""
    missing = [i for i in range(len(grid.boxes)) if not manifest.done(f"{name} {i}")]
    facts = team.map(work, missing, name)
    for index, found in zip(missing, facts, strict=True):
        manifest.record(f"{name} {index}", **found)


def check_affinities(
    affinities: Volume, threshold: float, *, memory_gb: float = 1.0
) -> None:
    """Refuses what would fail in every box.

    Raises:
      InputError: fewer than 3 channels, another type, a threshold outside [0, 1], or no
        memory to work in.
    """
    if affinities.shape[0] < 3:
        raise InputError(
            f"{affinities.source} has {affinities.shape[0]} channel(s); wanted at least "
            "3, the edges on x, y and z"
        )
    edge_range(affinities.dtype, threshold)
    if not memory_gb > 0:
        raise InputError(f"decode.memory_gb is {memory_gb}; wanted more than 0")


def _check(affinities, output, edge_offset, mask_edges) -> None:
    if affinities.spatial_shape != output.shape:
        raise InputError(
            f"output {output.source} {output.shape} does not match affinities "
            f"{affinities.spatial_shape}; make it of the same shape"
        )
    if output.dtype.kind != "u":
        raise InputError(
            f"output {output.source} is {output.dtype}; wanted an unsigned integer type"
        )
    check_options(edge_offset, mask_edges)


def _check_labels(output: Volume, count: int) -> None:
    if count > np.iinfo(output.dtype).max:
        raise InputError(
            f"output {output.source} is {output.dtype}, too small for {count} segments; "
            "make it uint64"
        )


def _provisional(folder: pathlib.Path, output: Volume, grid: Grid) -> Volume:
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [
        math.gcd(b, c) if b < s else min(c, s)
        for b, c, s in zip(grid.box_shape, output.chunks, grid.shape, strict=True)
    ]
    return create_zarr(
        folder / "provisional.zarr",
        shape=grid.shape,
        dtype=np.uint32,
        chunks=tuple(chunks),
        axes="xyz",
        compressor=_FAST,
    )
