"""Labels of a volume that is larger than memory, equal to those made in memory.

Every box of chunks is read and labelled once; then the seams are joined in layers; then the
provisional labels, kept compressed in a scratch folder inside the output, are written with
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

from nisbjax.decode.channels import short_range
from nisbjax.decode.connected_components import (
    check_options,
    edge_range,
)
from nisbjax.decode.keep import ImageSource, MaskSource, keep_mask
from nisbjax.decode.statistics import Statistics
from nisbjax.decode.streamed import scratch
from nisbjax.decode.streamed.boxes import BoxDecoder
from nisbjax.decode.streamed.grid import AT_ONCE, Grid, choose_box
from nisbjax.decode.streamed.relabeling import (
    OutputCheck,
    Relabeler,
    all_files,
    remove_chunks,
)
from nisbjax.decode.streamed.seams import Seams
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.parallel import cluster
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple


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
    fingerprint: Mapping[str, Any] | None = None,
    kind: str = "threads",
    workers: int = 0,
    address: str = "",
) -> Statistics:
    """Decodes `affinities` into `output`: the labels of `label_affinities`, box by box.

    Args:
      affinities: [c x y z]; float16, float32, or uint8 meaning value / 255. Channels are
        taken by its attribute `offsets` (see `channels.short_range`), without it the first
        three.
      output: [x y z], an unsigned type that holds the number of labels.
      threshold, mask, image, mask_edges, edge_offset: as `label_affinities`; mask and image
        may be volumes on disk.
      memory_gb: for everything that is held at once; in each worker of a cluster.
      min_size: segments of fewer voxels become background before numbering.
      threads: at work on a box; where None, the cores there are for it.
      box_shape: instead of what memory allows; the labels do not depend on it.
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
    affinities, edge_offset = short_range(affinities, edge_offset)
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
        artifact = pathlib.Path(output.source if on_disk else f"{temporary}/labels")
        folder = artifact / scratch.NAME
        with Manifest(artifact, settings) as manifest:
            manifest.verify(opened=True)
            if manifest.finished:
                shutil.rmtree(folder, ignore_errors=True)
                return Statistics.of_finished(manifest, output)
            grid = _begun(manifest, grid, folder)
            decoder = BoxDecoder(
                affinities,
                scratch.open_labels(folder, shape, _chunks(output, grid)),
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
                statistics = _decode(decoder, output, manifest, min_size, team)
            statistics.note(output)
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


def _begun(manifest: Manifest, grid: Grid, folder: pathlib.Path) -> Grid:
    """The grid of the attempt that is gone on with; else this is the first."""
    noted = manifest.noted("grid")
    if noted is None:
        # Of an output whose manifest was removed, or of a kill before the first line.
        shutil.rmtree(folder, ignore_errors=True)
        manifest.note("grid", box_shape=list(grid.box_shape))
        return grid
    found: Any = noted.get("box_shape")
    try:
        x, y, z = map(int, found)
        if min(x, y, z) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"{manifest.path} says that boxes are of {found!r}; wanted three sizes. "
            "Remove the output and decode again"
        ) from None
    return Grid(grid.shape, (x, y, z))


def _decode(
    decoder: BoxDecoder,
    output: Volume,
    manifest: Manifest,
    min_size: int,
    team: cluster.Workers,
) -> Statistics:
    """The three steps, of which the boxes are done that no attempt did before."""
    folder, grid = decoder.folder, decoder.grid
    all_boxes = range(len(grid.boxes))
    names = [f"decode {box}" for box in grid.boxes]
    found = [manifest.facts(n).get("record") if manifest.done(n) else "" for n in names]
    damaged = [i for i in all_boxes if not scratch.is_sound(folder, i, found[i])]
    _warn("records", [grid.boxes[i] for i in damaged if found[i]])
    for i, facts in zip(damaged, team.map(decoder, damaged, "decode"), strict=True):
        manifest.record(names[i], **facts)
    # All tables are made from the records, in every attempt.
    statistics = Seams(folder, grid, decoder.edge_offset).number(min_size, team.map)
    _check_labels(output, statistics.segments)
    _relabel(decoder, output, manifest, team)
    return statistics


def _relabel(
    decoder: BoxDecoder, output: Volume, manifest: Manifest, team: cluster.Workers
) -> None:
    """Writes the final labels of the boxes of which no attempt has written them."""
    boxes = decoder.grid.boxes
    names = [f"relabel {box}" for box in boxes]
    sound = {i for i, name in enumerate(names) if manifest.done(name)}
    whole_chunks = decoder.grid.holds_whole(output)  # then their files were compared
    if not whole_chunks:
        done = sorted(sound)
        wanted = [manifest.facts(names[i]).get("labels") for i in done]
        checked = team.map(OutputCheck(output, decoder.grid), done)
        damaged = [i for i, a, b in zip(done, wanted, checked, strict=True) if a != b]
        _warn("labels", [boxes[i] for i in damaged])
        if damaged:  # a chunk that cannot be read cannot be written in part either
            remove_chunks(output)
            sound = set()
    missing = [i for i in range(len(boxes)) if i not in sound]
    relabeler = Relabeler(decoder, output)
    for i, facts in zip(missing, team.map(relabeler, missing, "relabel"), strict=True):
        manifest.record(names[i], **facts)
    if not whole_chunks:
        manifest.record("chunks of several boxes", all_files(output))


def _warn(what: str, boxes: list[Box]) -> None:
    if boxes:
        logging.warning(
            "%s of %d boxes of an earlier attempt are missing or damaged, the first of "
            "them %s; they are made again",
            what,
            len(boxes),
            boxes[0],
        )


def _threads(kind: str, workers: int) -> int | None:
    """Of one box: a share of this machine's cores, or all of a cluster's worker's."""
    if kind == "dask":
        return None
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // (AT_ONCE if kind == "threads" else workers or cores))


def check_affinities(
    affinities: Volume, threshold: float, *, memory_gb: float | None = None
) -> None:
    """Refuses what would fail in every box.

    Raises:
      InputError: an edge to the next voxel along x, y or z is missing, another type, a
        threshold outside [0, 1], no memory to work in, or less than two chunks take.
    """
    short_range(affinities)
    edge_range(affinities.dtype, threshold)
    if memory_gb is None:
        return
    if not memory_gb > 0:
        raise InputError(f"decode.memory_gb is {memory_gb}; wanted more than 0")
    require_chunks_fit(affinities, memory_gb)


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


def _chunks(output: Volume, grid: Grid) -> Triple:
    """Of the provisional labels: none lies in two boxes."""
    x, y, z = (
        math.gcd(b, c) if b < s else min(c, s)
        for b, c, s in zip(grid.box_shape, output.chunks, grid.shape, strict=True)
    )
    return x, y, z
