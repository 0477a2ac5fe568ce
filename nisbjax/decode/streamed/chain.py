"""Mutex components and contested growth of a volume that is larger than memory.

Fragments are made box by box, with a halo beyond the longest offset; those that agree where two
boxes overlap are one (`agreement`), and know their size in the whole volume; those large
enough grow, box by box again (`growth`); then labels are numbered and written as those of
the streamed components are. The boxes follow from the shape of the volume and its offsets, so
the labels depend on neither memory, workers nor resumption; a volume of one box is decoded as
`chain_affinities` does. Nobody else decodes a mutex watershed in bounded memory.
"""

import dataclasses
import functools
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax.console import quantities
from nisbjax.decode import chain, contested_growth, mutex_components
from nisbjax.decode.agglomeration.box_links import LinkReader
from nisbjax.decode.agglomeration.evidence import BINS
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.channels import short_range, with_offsets
from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.segment_counts import SegmentCounts
from nisbjax.decode.streamed import scratch
from nisbjax.decode.streamed.agreement import AgreeingFragments
from nisbjax.decode.streamed.boxes import BoxDecoder, ComponentsDecoder
from nisbjax.decode.streamed.fragments import MutexDecoder
from nisbjax.decode.streamed.grid import PARTS, BoxGrid, even_grid
from nisbjax.decode.streamed.growth import GrowthDecoder, NamedLabels, note_components
from nisbjax.decode.streamed.label_tables import LabelTables
from nisbjax.decode.streamed.labeling import (
    attempt,
    check_labels,
    check_output,
    label_boxes,
    nonfinite_of,
    resumed,
)
from nisbjax.decode.streamed.layers import LayeredLabels
from nisbjax.decode.streamed.links import AnchorLinks
from nisbjax.decode.streamed.relabeling import relabel_boxes
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.decode.streamed.seams import Seams
from nisbjax.decode.streamed.shaving import ShavingDecoder
from nisbjax.errors import InputError
from nisbjax.parallel import cluster
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

_WHOLE = 64  # voxels along an axis that are not worth dividing
_BEYOND = 6  # voxels beside a box, more than its longest edges reach
_REACH = 16  # voxels beside a box from which labels grow into it, at least


def chain_volume(
    affinities: Volume,
    output: Volume,
    *,
    parameters: ChainParameters,
    memory_gb: float,
    threshold: float | None = None,
    edges: MaskedEdges | None = None,
    min_size: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
) -> SegmentCounts:
    """Decodes `affinities` into `output`, box by box.

    Args:
      affinities: [c x y z], with its offsets among the attributes, or those of `OFFSETS_6`;
        float16, float32, or uint8 meaning value / 255.
      output: [x y z], an unsigned type that holds the number of labels.
      parameters: of both steps.
      memory_gb: for everything that is held at once; in each worker of a cluster.
      threshold: makes fragments the components of edges above it instead, for files of
        three channels; `attract` and `repel` then mean nothing.
      edges: which of them count; all, stored at their source, where None.
      min_size: segments of fewer voxels become background before numbering.
      fingerprint: of the inputs, noted in the manifest; an interrupted decode is resumed only
        with equal inputs and settings.
      schedule: of those who decode the boxes; of boxes of another shape, which give other
        labels.

    Returns:
      Number and sizes of the segments, and the share of background.

    Raises:
      InputError: too few channels, parameters that mean nothing, memory for less than one
        box, shapes that differ, an output type that cannot hold the labels, or an output
        that belongs to other inputs or settings.
    """
    began = time.monotonic()
    schedule = schedule or Schedule()
    check_chain(
        affinities,
        parameters,
        memory_gb=memory_gb,
        threshold=threshold,
        box_shape=schedule.box_shape,
    )
    check_output(affinities, output)
    edges = edges or MaskedEdges()
    edges.require_shape(affinities.spatial_shape)
    settings = {
        **parameters.counting(),
        "threshold": threshold,
        "edge_offset": edges.edge_offset,
        "mask_edges": edges.mask_edges,
        "min_size": min_size,
        **(fingerprint or {}),
    }
    with attempt(output, settings) as (manifest, folder):
        if manifest.finished:
            return SegmentCounts.of_finished(manifest, output)
        grid = grid_of(affinities, threshold, schedule.box_shape)
        grid = resumed(manifest, grid, folder)
        at_once = _at_once(affinities, grid, threshold, memory_gb)
        steps = _steps(affinities, grid, folder, parameters, threshold, edges, schedule)
        with schedule.team(at_once) as team:
            counts = _decode(steps, output, manifest, min_size, memory_gb, team)
    logging.info(
        "decoded %d box%s in %s",
        *(len(grid.boxes), "es" * (len(grid.boxes) > 1)),
        quantities.duration(time.monotonic() - began),
    )
    return counts


def check_chain(
    affinities: Volume,
    parameters: ChainParameters,
    *,
    memory_gb: float,
    threshold: float | None = None,
    box_shape: Triple | None = None,
) -> None:
    """Refuses what `chain_volume` refuses, without a mask and an output.

    Args:
      affinities, parameters, memory_gb, threshold: as there.
      box_shape: of the schedule.

    Raises:
      InputError: as there.
    """
    if threshold is None:
        chain.check_channels(with_offsets(affinities)[1])
    else:
        edge_range(affinities.dtype, threshold)
    chain.check(affinities.dtype, parameters)
    require_chunks_fit(affinities, memory_gb)
    grid = grid_of(affinities, threshold, box_shape)
    _at_once(affinities, grid, threshold, memory_gb)


@dataclasses.dataclass(frozen=True)
class _Steps:
    """What the boxes do, one after another, and what unites them in between.

    `links` is None where fragments do not join, `shaving` where nothing is shaved; `named`
    are the labels of the last step.
    """

    fragments: BoxDecoder
    united: LayeredLabels
    links: AnchorLinks | None
    growth: GrowthDecoder
    shaving: ShavingDecoder | None
    named: LayeredLabels


def _steps(
    affinities: Volume,
    grid: BoxGrid,
    folder: pathlib.Path,
    parameters: ChainParameters,
    threshold: float | None,
    edges: MaskedEdges,
    schedule: Schedule,
) -> _Steps:
    short, edge_offset = short_range(affinities, edges.edge_offset)
    short_edges = edges.stored_at(edge_offset)
    every, offsets = with_offsets(affinities)
    halo = halo_of(affinities, threshold)
    first, second = folder / "fragments", folder / "growth"
    labels = scratch.open_labels(first, grid.shape, parts_of(grid))
    if threshold is None:
        fragments = MutexDecoder(
            every, labels, first, grid, offsets, parameters, edges, halo
        )
        united = AgreeingFragments(first, grid)
    else:
        threads = schedule.threads_of_a_box()
        fragments = ComponentsDecoder(
            short, labels, first, grid, threshold, short_edges, threads
        )
        united = Seams(first, grid, edge_offset)
    x, y, z = map(min, grid.box_shape, grid.shape)
    chunks = parts_of(grid) if parameters.shave else (x, y, z)
    grown = scratch.open_labels(second, grid.shape, chunks)
    growth = GrowthDecoder(
        short, grown, second, grid, fragments, parameters, short_edges, halo
    )
    links = None
    if parameters.ways:
        bins = BINS if parameters.by_histogram else 1
        links = AnchorLinks(growth, every, LinkReader(offsets, bins, edges), parameters)
    shaving, last = None, second
    if parameters.shave:
        last = folder / "shaving"
        left = scratch.open_labels(last, grid.shape, (x, y, z))
        shaving = ShavingDecoder(short, left, last, grid, growth, parameters.shave)
    named = NamedLabels(last, grid)
    return _Steps(fragments, united, links, growth, shaving, named)


def _decode(
    steps: _Steps,
    output: Volume,
    manifest: Manifest,
    min_size: int,
    memory_gb: float,
    team: cluster.Workers,
) -> SegmentCounts:
    """All steps, of which the boxes are done that no attempt did before."""
    label_boxes(steps.fragments, "fragments", manifest, team, sealed=True)
    # All tables are made from the records, in every attempt.
    steps.united.join(team.map)
    note = functools.partial(note_components, steps.united)
    list(team.map(note, range(len(steps.united.layers()))))
    growth = steps.growth
    if steps.links is not None:
        joins = steps.links.join(memory_gb, team)
        growth = dataclasses.replace(growth, joins=joins)
    label_boxes(growth, "growth", manifest, team, sealed=steps.shaving is not None)
    last = steps.shaving or growth
    if steps.shaving is not None:
        label_boxes(steps.shaving, "shave", manifest, team)
    steps.named.join(team.map)
    counts = LabelTables(steps.named, min_size).write(team.map)
    nonfinite = nonfinite_of(steps.fragments)
    nonfinite.warn(steps.fragments.affinities.source)
    counts.nonfinite = nonfinite.count
    check_labels(output, counts.segments)
    relabel_boxes(last, output, manifest, team)
    counts.note(output)
    manifest.finish(**dataclasses.asdict(counts))
    return counts


def halo_of(affinities: Volume, threshold: float | None) -> int:
    """Voxels beside a box that are decoded with it.

    With 6 more than the longest offset two halves of a volume differ from the whole by a
    tenth of what they do with none more (VOI .0006 instead of .006 on FIB-25).
    """
    if threshold is not None:
        return _REACH
    return max(_REACH, _longest(with_offsets(affinities)[1]) + _BEYOND)


def _longest(offsets: Sequence[Triple]) -> int:
    """The longest offset along any axis."""
    return int(np.abs(offsets).max())


def grid_of(
    affinities: Volume, threshold: float | None, box_shape: Triple | None
) -> BoxGrid:
    """Of a shape that is asked for, or that follows from the volume and its offsets."""
    shape = affinities.spatial_shape
    if box_shape is not None:
        return BoxGrid(shape, box_shape)
    return even_grid(shape, halo_of(affinities, threshold))


def _at_once(
    affinities: Volume, grid: BoxGrid, threshold: float | None, memory_gb: float
) -> int:
    """How many boxes fit into memory.

    Raises:
      InputError: none.
    """
    halo = halo_of(affinities, threshold)
    around = map(min, (b + 2 * halo for b in grid.box_shape), grid.shape)
    voxels = math.prod(around)
    needed = contested_growth.memory_bytes(affinities.dtype, voxels) + 8 * voxels
    if threshold is None:
        channels = len(with_offsets(affinities)[1])
        mutex = mutex_components.memory_bytes(affinities.dtype, voxels, channels)
        needed = max(needed, mutex)
    if needed > memory_gb * 1e9:
        x, y, z = map(min, grid.box_shape, grid.shape)
        raise InputError(
            f"decode.memory_gb is {memory_gb:g}; a box of {x} x {y} x {z} voxels and what "
            f"surrounds it need {needed / 1e9:.3g}: raise it to that or more"
        )
    return int(min(memory_gb * 1e9 // needed, len(os.sched_getaffinity(0))))


def parts_of(grid: BoxGrid) -> Triple:
    """Chunks of labels of which a box reads the nearest ones of its neighbours."""
    x, y, z = (
        b // PARTS if b > _WHOLE and b % PARTS == 0 else min(b, s)
        for b, s in zip(grid.box_shape, grid.shape, strict=True)
    )
    return x, y, z
