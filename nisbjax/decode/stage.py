"""The decoding stage: a file of affinities becomes a file of segments.

PyTC's decode stage (`decoding/stage.py`) with its mask; unlike there the work is streamed,
is resumed after a kill, and the segmentation says what made it and what it consists of.
"""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from absl import logging

from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.methods import check_keys
from nisbjax.decode.plan import Plan
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError, require_choice
from nisbjax.keys import determines, ranges
from nisbjax.mask import mask_facts, open_mask
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.finished import require_finished
from nisbjax.store.lock import writing
from nisbjax.store.manifest import require_same
from nisbjax.store.volume import Volume, create_zarr, open_affinities
from nisbjax.store.zarr_output import require_writable
from nisbjax.typing import Section


def run(
    section: Section,
    cluster: Section,
    path: pathlib.Path,
    *,
    affinities: str | pathlib.Path,
    mask: str | pathlib.Path = "",
    edge_stored_at: str,
    determined_by: Mapping[str, Any],
) -> pathlib.Path:
    """Decodes one prediction; an earlier attempt that was stopped is resumed.

    Args:
      section: `decode`; where input, mask and output lie is said by the next ones.
      cluster: `cluster`, which decodes boxes where the method is streamed.
      path: of the zarr array that is written.
      affinities: path of [c x y z].
      mask: path of [x y z], 0 = masked; "" for none.
      edge_stored_at: `source` or `destination`, where the file does not say.
      determined_by: the keys that determine the segments, with their values: an output
        that others made is refused.

    Returns:
      `path`, finished.

    Raises:
      InputError: a key without meaning, unfinished input, too few channels, a mask of
        another shape, or an output that other inputs or settings began.
    """
    plan = _planned(section, cluster, path, affinities, edge_stored_at, determined_by)
    edges, facts = _masked(plan, mask)
    made_from = {**plan.made_from, **facts}
    require_same(path, made_from)
    attributes = plan.attributes(mask)
    started = time.monotonic()
    options: dict[str, Any] = plan.parameters
    if plan.method.streamed:
        options["schedule"] = Schedule(cluster.kind, cluster.workers, cluster.address)
    with writing(path):
        output = create_zarr(path, **plan.array, axes="xyz", attributes=attributes)
        counts = plan.method.decode(
            plan.affinities,
            output,
            plan.threshold,
            **options,
            memory_gb=section.memory_gb,
            edges=edges,
            min_size=section.min_size,
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


def check(
    section: Section,
    cluster: Section,
    path: pathlib.Path,
    *,
    affinities: str | pathlib.Path,
    edge_stored_at: str,
    determined_by: Mapping[str, Any],
) -> None:
    """Refuses what `run` would, but for the mask, before that is made.

    Args:
      section, cluster, path, affinities, edge_stored_at, determined_by: as `run`.

    Raises:
      InputError: as `run`.
    """
    plan = _planned(section, cluster, path, affinities, edge_stored_at, determined_by)
    require_same(path, plan.made_from)
    require_writable(path, **plan.array)


def check_path(path: pathlib.Path) -> None:
    """Refuses an output that is no zarr array, or where something else lies.

    Raises:
      InputError: naming the path.
    """
    endings = ranges.OUTPUT_ENDINGS["decode.output"]
    if path.suffix not in endings:
        raise InputError(
            f"decode.output is {path}; wanted a name that ends in {' or '.join(endings)}"
        )
    require_same(path, {})


def edge_offset(edge_stored_at: str, affinities: Volume) -> int:
    """0 where edges are stored at their source, 1 at the destination.

    Args:
      edge_stored_at: the configuration's word; that of the file wins.
      affinities: [c x y z].

    Raises:
      InputError: neither word.
    """
    stored = _stored_at(edge_stored_at, affinities)
    require_choice("data.edge_stored_at", stored, ("source", "destination"))
    return int(stored == "destination")


def _planned(
    section: Section,
    cluster: Section,
    path: pathlib.Path,
    affinities: str | pathlib.Path,
    edge_stored_at: str,
    determined_by: Mapping[str, Any],
) -> Plan:
    """Opens the affinities, once nothing speaks against the keys and the output's path."""
    check_keys(section, cluster)
    check_path(path)
    source = str(affinities)
    require_finished(source)
    volume = open_affinities(source)
    made_from = {
        **determined_by,
        # The word of the file wins over that of the configuration.
        "data.edge_stored_at": _stored_at(edge_stored_at, volume),
        "affinities": fingerprint(source),
    }
    offset = edge_offset(edge_stored_at, volume)
    MaskedEdges(offset, mask_edges=section.mask_edges)
    digest = determines.digest(determined_by)
    plan = Plan(section, source, volume, offset, made_from, digest)
    plan.method.check(
        volume, plan.threshold, **plan.parameters, memory_gb=section.memory_gb
    )
    return plan


def _masked(plan: Plan, path: str | pathlib.Path) -> tuple[MaskedEdges, dict[str, Any]]:
    """The edges that count under a mask, and what it lets through, for the manifest."""
    if path:
        require_finished(path)
    mask, image = open_mask(path) if path else (None, None)
    facts = mask_facts(path, mask)
    edges = MaskedEdges(plan.edge_offset, mask, image, plan.section.mask_edges)
    edges.require_shape(plan.affinities.spatial_shape)
    return edges, facts


def _stored_at(edge_stored_at: str, affinities: Volume) -> str:
    return affinities.attributes.get("edge_stored_at", edge_stored_at)
