"""Labels of a volume that is larger than memory, equal to those made in memory.

Every box of chunks is read and labelled once; then the seams are joined in layers; then the
provisional labels, kept compressed in a scratch folder inside the output, are written with
their final numbers. The output is written once: relabelling it in place could not be
resumed after a kill, and a lazily relabelled view would leave every later reader with a
table as large as the number of fragments. PyTC's streamed decoder needs a halo, numbers by
chunk, and applies no mask.
"""

import contextlib
import dataclasses
import math
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from nisbjax.console import quantities
from nisbjax.decode.channels import short_range
from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.nonfinite import Nonfinite
from nisbjax.decode.segment_counts import SegmentCounts
from nisbjax.decode.streamed import scratch
from nisbjax.decode.streamed.boxes import BoxDecoder, BoxRecord, ComponentsDecoder
from nisbjax.decode.streamed.grid import BoxGrid, choose_box
from nisbjax.decode.streamed.label_tables import LabelTables
from nisbjax.decode.streamed.relabeling import LabelCheck, relabel_boxes, warn_of_damage
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.decode.streamed.seams import Seams
from nisbjax.errors import InputError
from nisbjax.mask import MaskSource
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
    edges: MaskedEdges | None = None,
    min_size: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
) -> SegmentCounts:
    """Decodes `affinities` into `output`: the labels of `label_affinities`, box by box.

    Args:
      affinities: [c x y z]; float16, float32, or uint8 meaning value / 255; its channels are
        taken as `channels.short_range` does.
      output: [x y z], an unsigned type that holds the number of labels.
      threshold: as `label_affinities`.
      memory_gb: for everything that is held at once; in each worker of a cluster.
      mask: [x y z], 0 (or False) = masked, an array or a volume; or a specification.
      edges: instead of `mask`, which edges count, where not all are stored at their source.
      min_size: segments of fewer voxels become background before numbering.
      fingerprint: of the inputs, noted in the manifest; an interrupted decode is resumed only
        with equal inputs and settings.
      schedule: of the boxes, and of those who decode them.

    Returns:
      Number and sizes of the segments, and the share of background.

    Raises:
      InputError: as `label_affinities`; shapes that differ; an output type that cannot hold
        the labels; or an output that belongs to other inputs or settings.
    """
    began = time.monotonic()
    check_affinities(affinities, threshold, memory_gb=memory_gb)
    check_output(affinities, output)
    edges = MaskedEdges.of(edges, mask)
    edges.require_shape(affinities.spatial_shape)
    affinities, edge_offset = short_range(affinities, edges.edge_offset)
    edges = edges.stored_at(edge_offset)
    schedule = schedule or Schedule()
    grid = _first_grid(affinities, output, memory_gb, schedule)
    settings = {
        "threshold": threshold,
        "edge_offset": edges.edge_offset,
        "mask_edges": edges.mask_edges,
        "min_size": min_size,
        **(fingerprint or {}),
    }
    with attempt(output, settings) as (manifest, folder):
        if manifest.finished:
            return SegmentCounts.of_finished(manifest, output)
        grid = resumed(manifest, grid, folder)
        labels = scratch.open_labels(folder, grid.shape, _label_chunks(output, grid))
        threads = schedule.threads_of_a_box()
        decoder = ComponentsDecoder(
            affinities, labels, folder, grid, threshold, edges, threads
        )
        with schedule.team() as team:
            counts = _decode(decoder, output, manifest, min_size, team)
    logging.info(
        "decoded %d box%s in %s",
        *(len(grid.boxes), "es" * (len(grid.boxes) > 1)),
        quantities.duration(time.monotonic() - began),
    )
    return counts


@contextlib.contextmanager
def attempt(
    output: Volume, settings: Mapping[str, Any]
) -> Iterator[tuple[Manifest, pathlib.Path]]:
    """Opens an output's manifest, and the folder for what lies between the steps.

    The folder is removed in the end, but after an error it stays for the next attempt.

    Raises:
      InputError: the output belongs to other settings, or is damaged.
    """
    with tempfile.TemporaryDirectory() as temporary:
        on_disk = pathlib.Path(output.source).is_dir()
        artifact = pathlib.Path(output.source if on_disk else f"{temporary}/labels")
        folder = artifact / scratch.NAME
        with Manifest(artifact, settings) as manifest:
            manifest.verify(opened=True)
            yield manifest, folder
        shutil.rmtree(folder, ignore_errors=True)


def _first_grid(
    affinities: Volume, output: Volume, memory_gb: float, schedule: Schedule
) -> BoxGrid:
    """Boxes of the shape that is asked for, or that memory allows."""
    # Affinities and what they are read from, labels twice, a mask and its image, tables.
    need = 4.5 * affinities.dtype.itemsize + 12
    shape = schedule.box_shape
    shape = shape or choose_box(affinities, need, memory_gb, output=output)
    return BoxGrid(affinities.spatial_shape, shape)


def resumed(manifest: Manifest, grid: BoxGrid, folder: pathlib.Path) -> BoxGrid:
    """The grid of the attempt that is resumed; where there is none, this one is noted.

    What another version left between the steps is removed, and its boxes are forgotten.
    """
    noted = manifest.noted("grid")
    if noted is not None and noted.get("format") != scratch.FORMAT:
        logging.warning(
            "%s was left unfinished by another version of this program, whose boxes hold "
            "something else; it is decoded from its beginning",
            manifest.artifact,
        )
        manifest.forget(manifest.keys)
        noted = None
    if noted is None:
        # Of an output whose manifest was removed, or of a kill before the first line.
        shutil.rmtree(folder, ignore_errors=True)
        shape = list(grid.box_shape)
        manifest.note("grid", box_shape=shape, format=scratch.FORMAT)
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
    return BoxGrid(grid.shape, (x, y, z))


def _decode(
    decoder: ComponentsDecoder,
    output: Volume,
    manifest: Manifest,
    min_size: int,
    team: cluster.Workers,
) -> SegmentCounts:
    """The three steps, of which the boxes are done that no attempt did before."""
    label_boxes(decoder, "decode", manifest, team)
    # All tables are made from the records, in every attempt.
    seams = Seams(decoder.folder, decoder.grid, decoder.edges.edge_offset)
    seams.join(team.map)
    counts = LabelTables(seams, min_size).write(team.map)
    nonfinite = nonfinite_of(decoder)
    nonfinite.warn(decoder.affinities.source)
    counts.nonfinite = nonfinite.count
    check_labels(output, counts.segments)
    relabel_boxes(decoder, output, manifest, team)
    counts.note(output)
    manifest.finish(**dataclasses.asdict(counts))
    return counts


def nonfinite_of(decoder: BoxDecoder) -> Nonfinite:
    """What of the affinities is no number, by the records of all boxes."""
    indices = range(len(decoder.grid.boxes))
    records = (BoxRecord(decoder.folder, decoder.grid, i) for i in indices)
    return sum((record.nonfinite for record in records), Nonfinite())


def label_boxes(
    decoder: BoxDecoder,
    step: str,
    manifest: Manifest,
    team: cluster.Workers,
    *,
    sealed: bool = False,
) -> None:
    """Labels the boxes of which no attempt left a record that is sound.

    Args:
      step: one word, for the manifest.
      sealed: boxes of an earlier attempt must have the labels of their records too, for
        those who read a part of them and cannot compare.
    """
    folder, boxes = decoder.folder, decoder.grid.boxes
    names = [f"{step} {box}" for box in boxes]
    found = [manifest.facts(n).get("record") if manifest.done(n) else "" for n in names]
    damaged = [
        i for i in range(len(boxes)) if not scratch.is_sound(folder, i, found[i])
    ]
    warn_of_damage("records", [boxes[i] for i in damaged if found[i]])
    if sealed:
        kept = sorted(set(range(len(boxes))) - set(damaged))
        checked = team.map(LabelCheck(decoder.provisional, decoder.grid), kept)
        wanted = (BoxRecord(folder, decoder.grid, i).checksum for i in kept)
        lost = [i for i, a, b in zip(kept, wanted, checked, strict=True) if a != b]
        warn_of_damage("labels", [boxes[i] for i in lost])
        damaged = sorted(damaged + lost)
    for i, facts in zip(damaged, team.map(decoder, damaged, step), strict=True):
        manifest.record(names[i], **facts)


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


def check_output(affinities: Volume, output: Volume) -> None:
    if affinities.spatial_shape != output.shape:
        raise InputError(
            f"output {output.source} {output.shape} does not match affinities "
            f"{affinities.spatial_shape}; make it of the same shape"
        )
    if output.dtype.kind != "u":
        raise InputError(
            f"output {output.source} is {output.dtype}; wanted an unsigned integer type"
        )


def check_labels(output: Volume, count: int) -> None:
    if count > np.iinfo(output.dtype).max:
        raise InputError(
            f"output {output.source} is {output.dtype}, too small for {count} segments; "
            "make it uint64"
        )


def _label_chunks(output: Volume, grid: BoxGrid) -> Triple:
    """Of the provisional labels: none lies in two boxes."""
    x, y, z = (
        math.gcd(b, c) if b < s else min(c, s)
        for b, c, s in zip(grid.box_shape, output.chunks, grid.shape, strict=True)
    )
    return x, y, z
