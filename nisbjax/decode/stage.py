"""The decoding stage: a file of affinities becomes a file of segments.

PyTC's decode stage (`decoding/stage.py`) with its mask; unlike there the work is streamed,
goes on after a kill, and the segmentation says what made it and what it consists of.
"""

import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

import nisbjax
from nisbjax.artifacts import VolumeDir
from nisbjax.config import optional, require_choice
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.segment_counts import SegmentCounts
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.decode.streamed.volume import check_affinities, label_volume
from nisbjax.decode.whole import check_grow, check_mutex, grow_volume, mutex_volume
from nisbjax.errors import InputError
from nisbjax.keys import determines
from nisbjax.mask import mask_facts, open_mask
from nisbjax.parallel.cluster import check_cluster
from nisbjax.store.lock import writing
from nisbjax.store.manifest import require_finished, require_same
from nisbjax.store.volume import (
    Volume,
    create_zarr,
    fingerprint,
    open_affinities,
    require_writable,
)


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to decode.

    Attributes:
      decode: takes affinities, output, threshold, and what all methods share by name.
      check: takes affinities, threshold, `memory_gb` and parameters; refuses what `decode`
        would refuse, before anything is written.
      parameters: keys of `decode` that both take besides, under the same names.
      streamed: whether volumes may exceed memory, and boxes may go to a cluster.
    """

    decode: Callable[..., SegmentCounts]
    check: Callable[..., None]
    parameters: tuple[str, ...] = ()
    streamed: bool = False


METHODS = {
    "affinity_cc": Method(label_volume, check_affinities, streamed=True),
    "grow": Method(grow_volume, check_grow, ("low_threshold", "min_seed")),
    "mutex": Method(mutex_volume, check_mutex, ("low_threshold",)),
}
# As predictions are chunked, so that boxes fit both; neuroglancer reads 1 to 4 MB at once.
_CHUNKS = (64, 128, 128)


def run(
    config: Any,
    out: VolumeDir,
    *,
    affinities: str | pathlib.Path = "",
    mask: str | pathlib.Path = "",
    parameters: Mapping[str, float | int] | None = None,
) -> pathlib.Path:
    """Decodes one prediction; goes on where an earlier attempt stopped.

    Args:
      config: keys `decode`, `cluster`, `data.edge_stored_at`, `predict.channels`.
      out: folder of the volume: its raw affinities are the input where nothing else is
        named, and the segmentation goes there unless `decode.output` names a file.
      affinities: [c x y z]; `decode.input` wins over it.
      mask: [x y z], 0 = masked; "" for none. A path in `decode.affinity_mask` wins over
        it; `auto` there takes this one (whoever composes the stages makes it), "" none.
      parameters: instead of the keys of `decode` by these names (tuned ones).

    Returns:
      The finished zarr array.

    Raises:
      InputError: a key without meaning, unfinished input, too few channels, a mask of
        another shape, or an output that other inputs or settings began.
    """
    config = _with(config, parameters)
    source, volume, path = _checked(config, out, affinities)
    settings = config.decode
    method = METHODS[settings.method]
    level = float(settings.threshold)
    own = {name: settings[name] for name in method.parameters}
    masked = _mask_path(settings.affinity_mask, mask)
    if masked:
        require_finished(masked)
    applied, image = open_mask(masked) if masked else (None, None)
    made_from = {**_made_from(config, source, volume), **mask_facts(masked, applied)}
    edges = MaskedEdges(
        edge_offset(config, volume), applied, image, settings.mask_edges
    )
    edges.require_shape(volume.spatial_shape)
    require_same(path, made_from)
    attributes = {
        "axes": list("xyz"),
        "method": settings.method,
        "threshold": level,
        "compared_threshold": compared(level, volume.dtype),
        **own,
        "mask": str(masked),
        "mask_edges": settings.mask_edges,
        "min_size": settings.min_size,
        "source": os.path.abspath(source),
        "source_fingerprint": made_from["affinities"],
        "mask_fingerprint": fingerprint(masked) if masked else "",
        "config_fingerprint": determines.digest(
            determines.facts(config, "segmentation")
        ),
        "software": f"nisbjax {nisbjax.__version__}",
    }
    for inherited in ("voxel_size_nm", "box", "volume_shape"):
        if inherited in volume.attributes:
            attributes[inherited] = volume.attributes[inherited]
    for word in ("source", "source_fingerprint"):  # the image, for scoring
        if word in volume.attributes:
            attributes[word.replace("source", "image")] = volume.attributes[word]
    started = time.monotonic()
    if method.streamed:
        own["schedule"] = Schedule(
            config.cluster.kind, config.cluster.workers, config.cluster.address
        )
    with writing(path):
        output = create_zarr(path, **_array(volume), axes="xyz", attributes=attributes)
        counts = method.decode(
            volume,
            output,
            level,
            **own,
            memory_gb=settings.memory_gb,
            edges=edges,
            min_size=settings.min_size,
            fingerprint=made_from,
        )
    logging.info(
        "wrote %s in %.1f s: %d segments, %.2f %% background",
        path,
        time.monotonic() - started,
        counts.segments,
        100 * counts.attributes()["background"],
    )
    return path


def check_keys(
    config: Any, parameters: Mapping[str, float | int] | None = None
) -> None:
    """Refuses keys that mean nothing, before there is a prediction to decode.

    Args:
      config, parameters: as `run`.

    Raises:
      InputError: as `run`, of the keys `decode` and `cluster` alone, and of what lies where
        `decode.output` says.
    """
    config = _with(config, parameters)
    settings = config.decode
    require_choice("decode.method", settings.method, METHODS)
    method = METHODS[settings.method]
    require_in_range(settings, ("threshold", *method.parameters))
    if method.streamed:
        check_cluster(config.cluster.kind, config.cluster.address)
    path = optional(settings.output)
    if path and pathlib.Path(path).suffix != ".zarr":
        raise InputError(f"decode.output is {path}; wanted a name that ends in .zarr")
    if path:
        require_same(path, {})


def check(
    config: Any,
    out: VolumeDir,
    *,
    affinities: str | pathlib.Path = "",
    parameters: Mapping[str, float | int] | None = None,
) -> None:
    """Refuses what `run` would, but for the mask, before that is made.

    Args:
      config, out, affinities, parameters: as `run`.

    Raises:
      InputError: as `run`.
    """
    config = _with(config, parameters)
    source, volume, path = _checked(config, out, affinities)
    require_same(path, _made_from(config, source, volume))
    require_writable(path, **_array(volume))


def _checked(
    config: Any, out: VolumeDir, affinities: str | pathlib.Path
) -> tuple[str, Volume, pathlib.Path]:
    """Path and volume of the input, and the output's path, once nothing speaks against."""
    check_keys(config)
    settings = config.decode
    method = METHODS[settings.method]
    source = optional(settings.input) or str(affinities)
    source = source or str(out.find_raw(config.predict.channels))
    require_finished(source)
    volume = open_affinities(source)
    level = float(settings.threshold)
    own = {name: settings[name] for name in method.parameters}
    MaskedEdges(edge_offset(config, volume), mask_edges=settings.mask_edges)
    method.check(volume, level, **own, memory_gb=settings.memory_gb)
    path = pathlib.Path(
        optional(settings.output)
        or out.decoded(settings.method, level, *map(float, own.values()))
    )
    return source, volume, path


def _with(config: Any, parameters: Mapping[str, float | int] | None) -> Any:
    """The configuration with other values of some keys of `decode`."""
    if not parameters:
        return config
    config = config.copy_and_resolve_references()
    config.decode.update(parameters)
    return config


def _made_from(config: Any, source: str, volume: Volume) -> dict[str, Any]:
    """What determines a segmentation, without its mask."""
    return {
        **determines.facts(config, "segmentation"),
        # The word of the file wins over that of the configuration.
        "data.edge_stored_at": _stored_at(config, volume),
        "affinities": fingerprint(source),
    }


def _array(volume: Volume) -> dict[str, Any]:
    """Shape, type and chunks of the segmentation of some affinities."""
    voxels = math.prod(volume.spatial_shape)
    return {
        "shape": volume.spatial_shape,
        "dtype": np.uint32 if voxels < 2**32 else np.uint64,
        "chunks": _CHUNKS,
    }


def edge_offset(config: Any, affinities: Volume) -> int:
    """0 where edges are stored at their source, 1 at the destination; the file's word wins.

    Raises:
      InputError: neither word.
    """
    stored = _stored_at(config, affinities)
    require_choice("data.edge_stored_at", stored, ("source", "destination"))
    return int(stored == "destination")


def _stored_at(config: Any, affinities: Volume) -> str:
    return affinities.attributes.get("edge_stored_at", config.data.edge_stored_at)


def compared(threshold: float, dtype: np.dtype) -> float:
    """The number that affinities are really compared with, rounded to their own type."""
    return threshold if dtype == np.uint8 else float(dtype.type(threshold))


def _mask_path(chosen: str, composed: str | pathlib.Path) -> str:
    return str(composed) if chosen == "auto" else optional(chosen)


def require_in_range(settings: Any, names: Sequence[str]) -> None:
    """Refuses thresholds outside [0, 1], NaN too, and a negative `min_size`.

    Raises:
      InputError: naming the key.
    """
    for name in names:
        value = settings[name]
        if name.endswith("threshold") and not 0 <= value <= 1:
            raise InputError(f"decode.{name} is {value}; wanted a number in [0, 1]")
    if settings.min_size < 0:
        raise InputError(
            f"decode.min_size is {settings.min_size}; wanted 0 or more voxels"
        )
