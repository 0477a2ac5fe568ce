"""The evaluation of one segmentation: scores, tables, and the report beside it.

PyTC's `evaluation/stage.py` with BANIS's figures. It reads what any program wrote (zarr,
HDF5, npy, TIFF), and the JSON beside the report holds everything that produced the
numbers: configuration, the threshold's origin, versions and fingerprints.
"""

import datetime
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from nisbjax import skeletons
from nisbjax.artifacts import VolumeDir
from nisbjax.console import quantities
from nisbjax.errors import InputError
from nisbjax.evaluate import (
    dense,
    nerl,
    node_pairs,
    nodes,
    oracles,
    published,
    score_text,
    spread,
    tables,
)
from nisbjax.evaluate.ceiling import Components, ceiling
from nisbjax.evaluate.truth import Truth, require_metrics, settled
from nisbjax.store import files, finished, records, regions
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.description import file_lines
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.lock import held
from nisbjax.store.schema import shown, text
from nisbjax.store.volume import Volume, open_labels

DEFAULT_THRESHOLD = "default"
UNKNOWN_THRESHOLD = "of unknown origin"


class _Scored(NamedTuple):
    """What comparing with one kind of truth adds to the JSON and to the report."""

    facts: dict[str, Any]
    notes: list[str]
    files: dict[str, str] = {}  # noqa: RUF012 (replaced, never changed)


def run(
    metrics: Sequence[str],
    out: VolumeDir,
    segmentation: str | os.PathLike[str],
    truth: Truth,
    *,
    memory_gb: float,
    setting: str = "",
    threshold_origin: str = DEFAULT_THRESHOLD,
    components: Components | None = None,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Scores a segmentation and writes `eval_<its name>.{txt,json}` and the tables.

    Args:
      metrics: of `truth.WORDS`.
      out: folder of the volume, where everything is written.
      segmentation: labels [x y z] of any format that `volume` opens.
      truth: of its volume.
      memory_gb: for the boxes that are read at once.
      setting: of `published.LEADERBOARD`, whose figures the report shows; "" for none.
      threshold_origin: `default`, `tuned on FILE` or `command line`, for the record;
        "" for what an earlier evaluation of the same file said.
      components: of the truth's dense labels, for the ceiling that they set; None for no
        ceiling.
      config: the flat configuration, for the record.

    Returns:
      What the JSON holds: `skeletons` (of `nerl.score`), `dense`, and their origin.

    Raises:
      InputError: nothing to score or to score against, or inputs that do not fit.
    """
    require_metrics(metrics)
    path = str(segmentation)
    if not path:
        raise InputError(
            "no segmentation to evaluate; give --config.evaluate.segmentation=FILE, or "
            "run --mode=decode first"
        )
    said = "auto" in metrics and not truth.skeleton
    metrics = settled(metrics, truth.skeleton)
    truth.require_for(metrics)
    if said:
        logging.info("no skeletons: %s against dense labels", " and ".join(metrics))
    truth = truth.of_use_to(metrics)
    finished.require_finished(path)
    labels = open_labels(path)
    logging.info("scoring %s", file_lines(labels))
    require_chunks_fit(labels, memory_gb)
    made = fingerprint(path)
    check_outputs(out, path)
    name = Path(path)
    with held(out.evaluation(name, ".lock"), out.evaluation(name, ".txt")):
        started = time.monotonic()
        origin = threshold_origin or _earlier_origin(
            out.evaluation(name, ".json"), made
        )
        facts = _origin(out, path, made, labels, origin) | {"config": dict(config)}
        against = []
        if truth.skeleton:
            against.append(_against_skeletons(out, name, labels, truth, components))
            against[0].notes.extend(published.lines(setting, origin))
        if truth.label:
            against.append(_against_labels(out, metrics, labels, truth, memory_gb))
        _write(out, name, facts, against)
        logging.info(
            "scored in %s; wrote %s",
            quantities.duration(time.monotonic() - started),
            out.evaluation(name, ".txt"),
        )
    return facts


def check(
    metrics: Sequence[str],
    truth: Truth,
    covered: Volume | None = None,
    cache: Path | None = None,
) -> None:
    """Refuses metrics without what they need, before there is a segmentation to score.

    Args:
      metrics: of `truth.WORDS`.
      truth: of the volume.
      covered: see `Truth.require_readable`.
      cache: as `run`'s folder, if it is there.

    Raises:
      InputError: naming the metric and the key, or the skeleton or the labels that are not
        there, cannot be read, or do not fit.
    """
    require_metrics(metrics)
    metrics = settled(metrics, truth.skeleton)
    truth.require_for(metrics)
    truth.require_readable(metrics, covered, cache)


def check_outputs(out: VolumeDir, segmentation: str | os.PathLike[str]) -> None:
    """Refuses what lies where the scores of a segmentation are to go.

    Raises:
      InputError: a folder or a device.
    """
    for suffix in (".json", ".txt", *tables.NAMES):
        files.require_file(out.evaluation(Path(segmentation), suffix))


def _origin(
    out: VolumeDir, segmentation: str, made: str, labels: Volume, threshold_origin: str
) -> dict[str, Any]:
    """What produced the segmentation."""
    threshold = labels.attributes.get("threshold")
    parameters = _parameters(labels.attributes) if threshold is None else {}
    return {
        "timestamp": datetime.datetime.now().astimezone().strftime("%Y%m%d_%H%M%S"),
        "volume": out.name,
        "segmentation": segmentation,
        "segmentation_fingerprint": made,
        "segmentation_attributes": labels.attributes,
        "threshold": threshold,
        **({"parameters": parameters} if parameters else {}),
        "threshold_origin": threshold_origin,
        "versions": _versions(),
    }


def _parameters(attributes: Mapping[str, Any]) -> dict[str, float]:
    """What a method without a threshold noted of itself; nothing of other programs."""
    names = attributes.get("parameters")
    names = names if isinstance(names, list) else []
    found = {name: attributes.get(name) for name in names if isinstance(name, str)}
    return {k: v for k, v in found.items() if isinstance(v, int | float)}


def _earlier_origin(path: Path, fingerprint: str) -> str:
    wanted = {"segmentation_fingerprint": text(), "threshold_origin": text()}
    try:
        facts = records.read_json(path, wanted)
    except InputError:  # never scored, or by something else
        return UNKNOWN_THRESHOLD
    same = facts["segmentation_fingerprint"] == fingerprint
    return facts["threshold_origin"] if same else UNKNOWN_THRESHOLD


def _said(threshold: Any) -> str:
    """A threshold in a note; other programs may have written anything under its name."""
    if isinstance(threshold, int | float):
        return f"{threshold:g}"
    return shown(files.plain(threshold))


def _against_skeletons(
    out: VolumeDir,
    name: Path,
    labels: Volume,
    truth: Truth,
    components: Components | None,
) -> _Scored:
    """Scores at the skeletons' nodes, with their tables."""
    found = truth.load_skeletons(out.path)
    note = found.resolution_note(truth.voxel_size_nm)
    found, part = nodes.in_region(found, labels)
    notes = list(filter(None, (note, part)))
    for said in notes:
        logging.warning(said)
    counts = node_pairs.overlap(found, nodes.read_node_segments(labels, found))
    score = nerl.score(found, counts.node_segments, counts=counts)
    score |= oracles.scores(found, counts)
    notes.append(spread.note(score["nerl_share"]))
    if components is not None:
        best, reason = ceiling(found, truth.dense, labels, components)
        score |= best
        notes.append(reason)
    logging.info("%s: %s", out.name, score_text.summary(score))
    facts = {
        "skeleton": truth.skeleton,
        "skeleton_sha256": skeletons.content_hash(truth.skeleton),
        "skeletons": score,
    }
    notes = [note for note in notes if note]
    return _Scored(facts, notes, tables.write(out, name, found, counts))


def _against_labels(
    out: VolumeDir,
    metrics: Sequence[str],
    labels: Volume,
    truth: Truth,
    memory_gb: float,
) -> _Scored:
    """Scores against dense labels; a note where part of them is unlabeled."""
    known = regions.part_like(open_labels(truth.label), labels)
    table = dense.contingency_of_volumes(
        known, labels, unlabeled=truth.unlabeled, memory_gb=memory_gb
    )
    score: dict[str, float] = {}
    for metric, function in dense.FUNCTIONS.items():
        if metric in metrics:
            score |= function(table)
    logging.info("%s against dense labels: %s", out.name, score_text.summary(score))
    size = known.store.size
    left_out = size - int(table.voxels.sum())
    note = f"{left_out} of {size} voxels of {truth.label} are unlabeled, left out"
    facts = {
        "label": truth.label,
        "label_fingerprint": fingerprint(truth.label),
        "dense": score,
    }
    return _Scored(facts, [note] * bool(left_out))


def _write(
    out: VolumeDir, name: Path, facts: dict[str, Any], against: Sequence[_Scored]
) -> None:
    """Adds the scores to the facts, and writes the JSON, then the report."""
    notes, written = [], {}
    if facts["threshold"] is not None:  # other programs' files need not say
        said = _said(facts["threshold"])
        notes.append(f"threshold: {said} ({facts['threshold_origin']})")
    elif "parameters" in facts:
        said = score_text.parameters(facts["parameters"])
        notes.append(f"parameters: {said} ({facts['threshold_origin']})")
    for scored in against:
        facts |= scored.facts
        notes += scored.notes
        written |= scored.files
    facts |= {"files": written, "notes": notes}
    content = score_text.text(
        timestamp=facts["timestamp"],
        volume=out.name,
        skeleton_score=facts.get("skeletons"),
        dense_score=facts.get("dense"),
        files={"Graph": facts.get("skeleton", ""), **written},
        notes=notes,
    )
    files.write_json(out.evaluation(name, ".json"), facts)
    files.write_text(out.evaluation(name, ".txt"), content)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("nisbjax", "numpy", "numba", "tensorstore"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout
            found[package] = "not installed"
    return found
