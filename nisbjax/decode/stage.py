"""The decoding stage: a file of affinities becomes a file of segments.

PyTC's decode stage (`decoding/stage.py`) with its mask; unlike there the work is streamed,
is resumed after a kill, and the segmentation says what made it and what it consists of.
"""

import pathlib
import time
from typing import Any

from absl import logging

from nisbjax.console import quantities
from nisbjax.decode.channels import offsets_of
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.methods import check_keys
from nisbjax.decode.plan import Decoding, Plan
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError, require_choice
from nisbjax.keys import determines, ranges
from nisbjax.mask import mask_facts, open_mask_for
from nisbjax.offsets import OFFSETS_6
from nisbjax.store import absent_chunks, redo
from nisbjax.store.description import file_lines
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.finished import require_finished
from nisbjax.store.lock import writing
from nisbjax.store.manifest import require_same
from nisbjax.store.volume import Volume, create_zarr, open_affinities
from nisbjax.store.zarr_output import require_writable

_MADE_OF = "affinities"  # what this stage alone makes things of
_ADVICE = redo.advice("decode")


def run(decoding: Decoding, mask: str | pathlib.Path = "") -> pathlib.Path:
    """Decodes one prediction; an earlier attempt that was stopped is resumed.

    Args:
      decoding: what is asked for.
      mask: path of [x y z], 0 = masked; "" for none.

    Returns:
      The path that was asked for, finished.

    Raises:
      InputError: a key without meaning, unfinished input, too few channels, a mask of
        another shape, or an output that other inputs or settings began.
    """
    plan = _planned(decoding)
    edges, facts = _masked(plan, mask)
    made_from = {**plan.made_from, **facts}
    path, cluster = decoding.path, decoding.cluster
    if not decoding.redo:
        require_same(path, made_from, _ADVICE)
    attributes = plan.attributes(mask)
    absent_chunks.say(plan.affinities)
    started = time.monotonic()
    options: dict[str, Any] = {}
    if plan.method.streamed:
        options["schedule"] = Schedule(cluster.kind, cluster.workers, cluster.address)
    with writing(path):
        if decoding.redo:
            redo.remove(path, _MADE_OF)
        output = create_zarr(path, **plan.array, axes="xyz", attributes=attributes)
        said = file_lines(plan.affinities)
        logging.info("decoding by %s: %s\n%s", plan.section.method, said, _edges(plan))
        counts = plan.method.decode(
            plan.affinities,
            output,
            parameters=plan.parameters,
            memory_gb=plan.section.memory_gb,
            edges=edges,
            min_size=plan.section.min_size,
            fingerprint=made_from,
            **options,
        )
    seconds = time.monotonic() - started
    if not counts.segments:
        logging.warning(
            "%s has no segment: no edge counts for one; look at the affinities (--mode=qc), "
            "or choose lower keys of decode",
            path,
        )
    if decoding.told:
        took = quantities.duration(seconds)
        logging.info("%s in %s\nwrote %s", counts, took, path)
    return path


def check(decoding: Decoding) -> None:
    """Refuses what `run` would, but for the mask, before that is made.

    Raises:
      InputError: as `run`.
    """
    plan = _planned(decoding)
    if decoding.redo:
        redo.require_ours(decoding.path, _MADE_OF)
        return
    require_same(decoding.path, plan.made_from, _ADVICE)
    require_writable(decoding.path, **plan.array)


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


def _planned(decoding: Decoding) -> Plan:
    """Opens the affinities, once nothing speaks against the keys and the output's path."""
    section = decoding.section
    check_keys(section, decoding.cluster)
    check_path(decoding.path)
    source = str(decoding.affinities)
    require_finished(source)
    volume = open_affinities(source)
    made_from = {
        **decoding.determined_by,
        # The word of the file wins over that of the configuration.
        "data.edge_stored_at": _stored_at(decoding.edge_stored_at, volume),
        _MADE_OF: fingerprint(source),
    }
    offset = edge_offset(decoding.edge_stored_at, volume)
    MaskedEdges(offset, mask_edges=section.mask_edges)
    digest = determines.digest(decoding.determined_by)
    plan = Plan(section, source, volume, offset, made_from, digest)
    plan.method.check(volume, parameters=plan.parameters, memory_gb=section.memory_gb)
    return plan


def _masked(plan: Plan, path: str | pathlib.Path) -> tuple[MaskedEdges, dict[str, Any]]:
    """The edges that count under a mask, and what it lets through, for the manifest."""
    if path:
        require_finished(path)
    mask, image = open_mask_for(path, plan.affinities) if path else (None, None)
    facts = mask_facts(path, mask)
    edges = MaskedEdges(plan.edge_offset, mask, image, plan.section.mask_edges)
    edges.require_shape(plan.affinities.spatial_shape)
    return edges, facts


def _edges(plan: Plan) -> str:
    """Which edges the channels are taken for, and who says so."""
    named = offsets_of(plan.affinities)
    offsets = named or OFFSETS_6[: plan.affinities.shape[0]]
    said = "as the file says" if named else "no word for its offsets, taken as BANIS's"
    each = " ".join(
        f"({','.join(f'{o:+d}' if o else '0' for o in offset)})" if offset else "none"
        for offset in offsets
    )
    where = "destination" if plan.edge_offset else "source"
    return f"edges to {each}, {said},\nstored at their {where}"


def _stored_at(edge_stored_at: str, affinities: Volume) -> str:
    return affinities.attributes.get("edge_stored_at", edge_stored_at)
