"""Decoders that hold their volume in memory, from one file to another.

Growing and the mutex watershed take edges in the order of their strength, over the whole
volume, so no box can be decoded before another. Here they get what the streamed decoder
has: mask, smallest size, statistics, and an output that is finished or says that it is not.
PyTC's decoders are all of this kind, and none says beforehand what memory it takes.
"""

import dataclasses
import functools
import math
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import UInt

from nisbjax.console import quantities
from nisbjax.console.progress import Progress
from nisbjax.decode import grow, mutex, mutex_components
from nisbjax.decode.channels import short_range, with_offsets
from nisbjax.decode.grow import GrowParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex import MutexParameters
from nisbjax.decode.nonfinite import Nonfinite
from nisbjax.decode.segment_counts import SegmentCounts, without_small
from nisbjax.decode.streamed.labeling import check_affinities
from nisbjax.errors import InputError
from nisbjax.geometry import box_grid
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.typing import Affinities

_WRITTEN = (512, 512, 512)  # voxels at once


def grow_volume(
    affinities: Volume,
    output: Volume,
    *,
    parameters: GrowParameters,
    memory_gb: float,
    edges: MaskedEdges | None = None,
    min_size: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
) -> SegmentCounts:
    """Decodes `affinities` into `output` by growing seeds; see `grow_affinities`.

    Args:
      affinities: [c x y z], its channels taken as `label_volume` does.
      output: [x y z], an unsigned type.
      parameters: of the seeds, and of their growth.
      memory_gb: refused where more might be needed (`grow.memory_bytes`).
      edges: which of them count; all, stored at their source, where None.
      min_size: segments of fewer voxels become background.
      fingerprint: of the inputs, noted in the manifest.

    Returns:
      Number and sizes of the segments, and the share of background.

    Raises:
      InputError: as `grow_affinities`, too little memory, or an output that belongs to
        other inputs or settings.
    """
    check_grow(affinities, parameters=parameters, memory_gb=memory_gb)
    edges = edges or MaskedEdges()
    edges.require_shape(affinities.spatial_shape)
    chosen, edge_offset = short_range(affinities, edges.edge_offset)

    def decode(values: Affinities) -> UInt[np.ndarray, "x y z"]:
        return grow.grow_affinities(
            values,
            parameters.threshold,
            parameters.low_threshold,
            min_seed=parameters.min_seed,
            margin=parameters.grow_margin,
            edges=edges.stored_at(edge_offset),
            progress="grow",
        )

    made_from = {
        **dataclasses.asdict(parameters),
        "edge_offset": edges.edge_offset,
        "mask_edges": edges.mask_edges,
        "min_size": min_size,
        **(fingerprint or {}),
    }
    read = chosen.view(chosen.store[:3])
    return _write(read, decode, output, min_size, made_from)


def mutex_volume(
    affinities: Volume,
    output: Volume,
    *,
    parameters: MutexParameters,
    memory_gb: float,
    edges: MaskedEdges | None = None,
    min_size: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
) -> SegmentCounts:
    """Decodes `affinities` into `output` by the mutex watershed; see `mutex_affinities`.

    Args:
      affinities: [c x y z], with its offsets among the attributes, or those of `OFFSETS_6`.
        The edges to the next voxel attract, whatever their place, all others repel.
      output: [x y z], an unsigned type.
      parameters: above and below which edges attract and repel.
      memory_gb: refused where more is needed (`mutex_components.memory_bytes`).
      edges, min_size, fingerprint: as `grow_volume`.

    Returns:
      Number and sizes of the segments, and the share of background.

    Raises:
      InputError: as `mutex_affinities`, too little memory, or an output that belongs to
        other inputs or settings.
    """
    check_mutex(affinities, parameters=parameters, memory_gb=memory_gb)
    edges = edges or MaskedEdges()
    edges.require_shape(affinities.spatial_shape)
    chosen, offsets = with_offsets(affinities)

    def decode(values: Affinities) -> UInt[np.ndarray, "x y z"]:
        return mutex.mutex_affinities(
            values,
            parameters.threshold,
            parameters.low_threshold,
            offsets=offsets,
            edges=edges,
            progress="mutex",
        )

    made_from = {
        **dataclasses.asdict(parameters),
        "edge_offset": edges.edge_offset,
        "mask_edges": edges.mask_edges,
        "min_size": min_size,
        **(fingerprint or {}),
    }
    return _write(chosen, decode, output, min_size, made_from)


def check_grow(
    affinities: Volume, *, parameters: GrowParameters, memory_gb: float
) -> None:
    """Refuses what `grow_volume` refuses, without a mask and an output.

    Raises:
      InputError: as there.
    """
    check_affinities(affinities, parameters.threshold)
    parameters.check(affinities.dtype)
    needed = functools.partial(grow.memory_bytes, margin=parameters.grow_margin)
    _check_memory("grow", affinities, needed, memory_gb)


def check_mutex(
    affinities: Volume, *, parameters: MutexParameters, memory_gb: float
) -> None:
    """Refuses what `mutex_volume` refuses, without a mask and an output.

    Raises:
      InputError: as there.
    """
    chosen, offsets = with_offsets(affinities)
    mutex.check(chosen.shape, offsets)
    mutex.check_thresholds(
        affinities.dtype, parameters.threshold, parameters.low_threshold
    )
    needed = functools.partial(mutex_components.memory_bytes, channels=len(offsets))
    _check_memory("mutex", affinities, needed, memory_gb)


def _check_memory(
    method: str,
    affinities: Volume,
    memory_bytes: Callable[[np.dtype, int], int],
    memory_gb: float,
) -> None:
    require_chunks_fit(affinities, memory_gb)
    shape = affinities.spatial_shape
    needed = memory_bytes(affinities.dtype, math.prod(shape)) / 1e9
    if needed > memory_gb:
        raise InputError(
            f"decode.method={method} holds its whole volume: {shape} {affinities.dtype} "
            f"may need {needed:.3g} GB, and decode.memory_gb is {memory_gb:g}; raise it, "
            "or use --config.decode.method=affinity_cc, which is streamed"
        )


def _write(
    affinities: Volume,
    decode: Callable[[Affinities], UInt[np.ndarray, "x y z"]],
    output: Volume,
    min_size: int,
    made_from: Mapping[str, Any],
) -> SegmentCounts:
    """Decodes unless that is done, drops what is small, and writes box by box."""
    with tempfile.TemporaryDirectory() as temporary:
        on_disk = pathlib.Path(output.source).is_dir()
        artifact = output.source if on_disk else f"{temporary}/labels"
        with Manifest(artifact, made_from) as manifest:
            manifest.verify(opened=True)
            if manifest.finished:
                return SegmentCounts.of_finished(manifest, output)
            values = affinities.read()
            nonfinite = Nonfinite.of(values)
            nonfinite.warn(affinities.source)
            shape = quantities.shape(values.shape)
            logging.info("read %s affinities; decoding them as a whole", shape)
            labels = decode(values)
            del values
            counts = without_small(labels, min_size)
            counts.nonfinite = nonfinite.count
            boxes = box_grid(output.spatial_shape, _WRITTEN)
            with Progress("write labels", len(boxes), "boxes") as progress:
                for index, box in enumerate(boxes):
                    part = np.ascontiguousarray(labels[box.slices], output.dtype)
                    output.write(box, part)
                    known = output.chunk_facts(box, output.source)
                    manifest.record(f"write {index}", known)
                    progress.update()
            counts.note(output)
            manifest.finish(**dataclasses.asdict(counts))
    return counts
