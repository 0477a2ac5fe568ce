"""The evaluation of one segmentation: scores, tables, and the report beside it.

PyTC's `evaluation/stage.py` with BANIS's figures. It reads what any program wrote (zarr,
HDF5, npy, TIFF), and the JSON beside the report holds everything that produced the
numbers: configuration, the threshold's origin, versions and fingerprints.
"""

import datetime
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from nisbjax import config as config_lib
from nisbjax import skeletons
from nisbjax.artifacts import VolumeDir
from nisbjax.errors import InputError
from nisbjax.evaluate import dense, nerl, nodes, published, tables
from nisbjax.evaluate import score_text as report
from nisbjax.store import files as files_lib
from nisbjax.store import manifest, records
from nisbjax.store import volume as volume_lib
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.lock import held
from nisbjax.store.schema import shown, text

METRICS = ("nerl", "voi", "adapted_rand", "instance_accuracy")
DEFAULT_THRESHOLD = "default"
# Ending of each table -> what it is called in the report.
_TABLES = {
    "_nerl_per_gt_erl.npz": "Per-GT ERL File",
    "_edges.npz": "Per-Edge File",
    "_skeletons.npz": "Per-Skeleton File",
    "_skeletons.csv": "Per-Skeleton Table",
    "_mergers.csv": "Worst Mergers",
    "_splits.csv": "Worst Splits",
}
UNKNOWN_THRESHOLD = "of unknown origin"


def run(
    config: Any,
    out: VolumeDir,
    *,
    segmentation: str | os.PathLike[str] = "",
    skeleton: str | os.PathLike[str] = "",
    label: str | os.PathLike[str] = "",
    threshold_origin: str = DEFAULT_THRESHOLD,
) -> dict[str, Any]:
    """Scores a segmentation and writes `eval_<its name>.{txt,json}` and the tables.

    Args:
        config: `evaluate.*`; a path given there wins over the arguments.
        out: folder of the volume, where everything is written.
        segmentation: labels [x y z] of any format that `volume` opens.
        skeleton: `skeleton.pkl`; "" for none.
        label: dense labels [x y z]; "" for none.
        threshold_origin: `default`, `tuned on FILE` or `command line`, for the record;
            "" for what an earlier evaluation of the same file said.

    Returns:
        What the JSON holds: `skeletons` (of `nerl.score`), `dense`, and their origin.

    Raises:
        InputError: nothing to score or to score against, or inputs that do not fit.
    """
    chosen = config.evaluate
    segmentation = config_lib.optional(chosen.segmentation) or str(segmentation)
    skeleton = config_lib.optional(chosen.skeleton) or str(skeleton)
    label = config_lib.optional(chosen.label) or str(label)
    metrics = tuple(chosen.metrics)
    _check(metrics, segmentation, skeleton, label)
    if skeleton and label and "nerl" not in metrics and not os.path.exists(skeleton):
        logging.warning(
            "no skeletons at %s, and evaluate.metrics does not need them; scoring "
            "against dense labels alone",
            skeleton,
        )
        skeleton = ""

    manifest.require_finished(segmentation)
    labels = volume_lib.open_labels(segmentation)
    require_chunks_fit(labels, config.decode.memory_gb)
    stem = Path(segmentation)
    made = volume_lib.fingerprint(segmentation)
    check_outputs(out, segmentation)
    with held(out.evaluation(stem, ".lock"), out.evaluation(stem, ".txt")):
        return _run(
            config, out, segmentation, made, labels, skeleton, label, threshold_origin
        )


def _run(
    config: Any,
    out: VolumeDir,
    segmentation: str,
    made: str,
    labels: volume_lib.Volume,
    skeleton: str,
    label: str,
    threshold_origin: str,
) -> dict[str, Any]:
    started = time.monotonic()
    stem = Path(segmentation)
    json_path = out.evaluation(stem, ".json")
    threshold_origin = threshold_origin or _earlier_origin(json_path, made)
    facts: dict[str, Any] = {
        "timestamp": datetime.datetime.now().astimezone().strftime("%Y%m%d_%H%M%S"),
        "volume": out.name,
        "segmentation": segmentation,
        "segmentation_fingerprint": made,
        "segmentation_attributes": labels.attributes,
        "threshold": labels.attributes.get("threshold"),
        "threshold_origin": threshold_origin,
        "versions": _versions(),
        "config": config_lib.flatten(config.to_dict()),
    }
    notes = []
    if facts["threshold"] is not None:  # other programs' files need not say
        notes.append(f"threshold: {_said(facts['threshold'])} ({threshold_origin})")
    files: dict[str, str] = {}
    score = None
    if skeleton:
        truth = load_skeletons(skeleton, config, out.path)
        note = truth.resolution_note(_voxel_size(config))
        truth, part = nodes.in_region(truth, labels)
        for said in filter(None, (note, part)):
            logging.warning(said)
            notes.append(said)
        counts = nerl.overlap(truth, nodes.read_node_segments(labels, truth))
        score = nerl.score(truth, counts.node_segments, counts=counts)
        facts["skeleton"] = skeleton
        facts["skeleton_sha256"] = skeletons.content_hash(skeleton)
        facts["skeletons"] = score
        files = _write_tables(out, stem, truth, counts)
        notes += published.lines(published.setting_of(config.name), threshold_origin)
        logging.info("%s: %s", out.name, report.summary(score))
    dense_score = None
    if label:
        dense_score, left_out = _dense(config, label, labels)
        notes += filter(None, (left_out,))
        facts["label"] = label
        facts["label_fingerprint"] = volume_lib.fingerprint(label)
        facts["dense"] = dense_score
        logging.info("%s against dense labels: %s", out.name, dense_score)
    facts["files"] = files
    facts["notes"] = notes
    content = report.text(
        timestamp=facts["timestamp"],
        volume=out.name,
        skeleton_score=score,
        dense_score=dense_score,
        files={"Graph": skeleton, **files},
        notes=notes,
    )
    files_lib.write_json(json_path, facts)
    files_lib.write_text(out.evaluation(stem, ".txt"), content)
    logging.info(
        "wrote %s in %.1f s",
        out.evaluation(stem, ".txt"),
        time.monotonic() - started,
    )
    return facts


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
    return shown(files_lib.plain(threshold))


def load_skeletons(
    path: str | os.PathLike[str],
    config: Any,
    cache: Path | None = None,
) -> skeletons.Skeletons:
    """Skeletons with `data.voxel_size_nm` where the file itself has no nm positions."""
    return skeletons.load(path, cache=cache, voxel_size_nm=_voxel_size(config))


def _voxel_size(config: Any) -> tuple[float, float, float]:
    x, y, z = map(float, config.data.voxel_size_nm)
    return x, y, z


def check(
    config: Any,
    skeleton: str | os.PathLike[str],
    covered: volume_lib.Volume | None = None,
    cache: Path | None = None,
) -> None:
    """Refuses metrics without what they need, before there is a segmentation to score.

    Args:
        config: `evaluate.*`; a path given there wins over the argument.
        skeleton: `skeleton.pkl` of the volume; "" for none.
        covered: a volume of the segmentation's shape and region, such as the affinities
            that it will be made from; None where there is none yet.
        cache: as `run`'s folder, if it is there.

    Raises:
        InputError: naming the metric and the key, or the skeleton or the labels that are not
            there, cannot be read, or do not fit.
    """
    chosen = config.evaluate
    skeleton = config_lib.optional(chosen.skeleton) or str(skeleton)
    label = config_lib.optional(chosen.label)
    metrics = tuple(chosen.metrics)
    _check(metrics, "to come", skeleton, label)
    if "nerl" in metrics and not os.path.isfile(skeleton):
        raise InputError(
            f"no skeleton at {skeleton}; check data.root, or give "
            "--config.evaluate.skeleton=FILE, or other metrics"
        )
    if skeleton and os.path.isfile(skeleton):
        truth = load_skeletons(skeleton, config, cache)
        if covered is not None:
            nodes.in_region(truth, covered)
    if label:
        truth = volume_lib.open_labels(label)
        if covered is not None and truth.spatial_shape != covered.spatial_shape:
            raise InputError(
                f"labels {label} have shape {truth.spatial_shape}, and what is to be scored "
                f"{covered.spatial_shape}; wanted the same volume"
            )


def check_outputs(out: VolumeDir, segmentation: str | os.PathLike[str]) -> None:
    """Refuses what lies where the scores of a segmentation are to go.

    Raises:
        InputError: a folder or a device.
    """
    for suffix in (".json", ".txt", *_TABLES):
        files_lib.require_file(out.evaluation(Path(segmentation), suffix))


def _check(
    metrics: tuple[str, ...], segmentation: str, skeleton: str, label: str
) -> None:
    for metric in metrics:
        config_lib.require_choice("evaluate.metrics", metric, METRICS)
    if not segmentation:
        raise InputError(
            "no segmentation to evaluate; give --config.evaluate.segmentation=FILE, or "
            "run --mode=decode first"
        )
    if "nerl" in metrics and not skeleton:
        raise InputError(
            "evaluate.metrics asks for nerl, but there is no skeleton; give "
            "--config.evaluate.skeleton=FILE, or other metrics"
        )
    needs_label = [m for m in metrics if m in ("adapted_rand", "instance_accuracy")]
    if (needs_label or not skeleton) and not label:
        raise InputError(
            f"evaluate.metrics asks for {', '.join(needs_label or metrics)}, but there "
            "are no dense labels; give --config.evaluate.label=FILE, or other metrics"
        )


def _dense(
    config: Any, label: str, labels: volume_lib.Volume
) -> tuple[dict[str, float], str]:
    """The scores, and a sentence where part of the truth is unlabeled."""
    truth = volume_lib.open_labels(label)
    table = dense.contingency_of_volumes(
        truth,
        labels,
        unlabeled=config.data.unlabeled,
        memory_gb=config.decode.memory_gb,
    )
    left_out = truth.store.size - int(table.voxels.sum())
    functions = {
        "adapted_rand": dense.adapted_rand,
        "voi": dense.voi,
        "instance_accuracy": dense.instance_accuracy,
    }
    result: dict[str, float] = {}
    for name, function in functions.items():
        if name in config.evaluate.metrics:
            result |= function(table)
    said = f"{left_out} of {truth.store.size} voxels of {label} are unlabeled, left out"
    return result, said if left_out else ""


def _write_tables(
    out: VolumeDir, stem: Path, truth: skeletons.Skeletons, counts: nerl.Overlap
) -> dict[str, str]:
    """Writes the tables; returns their labels in the report and their paths."""
    of_skeleton = tables.per_skeleton(truth, counts)
    # name and arrays as PyTC writes them
    per_gt = {
        "gt_segment_id": of_skeleton["skeleton"],
        "erl": np.stack([of_skeleton["erl_nm"], of_skeleton["length_nm"]], axis=1),
    }
    edges = {
        "edges": truth.edges,
        "status": nerl.edge_status(counts),
        "status_names": np.array(nerl.STATUS_NAMES),
        "length_nm": counts.lengths_nm,
        "node_segments": counts.node_segments,
        "index_position": truth.index_position,
    }
    files: dict[str, str] = {}
    written = (per_gt, edges, of_skeleton, of_skeleton)
    written += tables.worst_mergers(truth, counts), tables.worst_splits(truth, counts)
    for (suffix, label), table in zip(_TABLES.items(), written, strict=True):
        path = out.evaluation(stem, suffix)
        write = tables.write_csv if suffix.endswith(".csv") else tables.write_npz
        write(table, path)
        files[label] = str(path)
    return files


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("nisbjax", "numpy", "numba", "tensorstore"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout
            found[package] = "not installed"
    return found
