"""Full-volume scores of checkpoints, by a job of its own that training never waits for.

    <run>/validate/           nerl.csv  nerl.json  tune_step=<step>/...
    <run>/logs/validate/      the same numbers for TensorBoard

Every new checkpoint is predicted, decoded and scored on the validation volume: at
`decode.threshold`, and at the best of `tune`'s thresholds; by NERL, or against dense labels
where `tune.objective` is of these. BANIS does this inside its
training loop on every process, or by a watcher that never ends; PyTC selects by loss alone.
"""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Sequence

from absl import logging

from nisbjax.artifacts import Run, ValidationDir, VolumeDir
from nisbjax.checkpoint import checkpoint
from nisbjax.errors import InputError
from nisbjax.keys.checks import optional
from nisbjax.modes import replacements, tuning, workflow
from nisbjax.modes.checkpoint_scores import CheckpointScores, Row
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.volumes import split_of
from nisbjax.parallel import signals
from nisbjax.store import checksums, lock, records
from nisbjax.store.schema import whole
from nisbjax.typing import Config

_VOI = ("voi_sum", "voi_split", "voi_merge")
_OF_SKELETONS = ("nerl", *_VOI, "coverage", "n_non0_mergers", "n_splits")
_OF_LABELS = ("adapted_rand_error", *_VOI)
# What says that a file is complete goes before the file.
_BULKY = ("*.zarr", "raw_*.h5", "trials", "tables")

_HALF = ".partial"  # ends the name of a copy under way


def run(
    config: Config,
    run_dir: Run,
    checkpoint_path: str,
    watch: bool = False,
    redo: Sequence[str] = (),
) -> list[Row]:
    """Mode validate: scores every checkpoint that is not scored yet.

    Goes on where it was stopped (SIGTERM and SIGUSR1 end it with status 143), and reads of
    the run's files only checkpoints and config.

    Args:
      config: `predict`, `decode` and `tune` are those of the other modes, but for the
        files that they name: every checkpoint has its own. `validate.keep` keeps predictions and segmentations, which are as large as the
        volume.
      run_dir: of the training.
      checkpoint_path: one checkpoint instead; "" for all of the run.
      watch: waits for more, until the checkpoint of the run's `train.steps` is scored, the
        file `validate/stop` appears, or none has come for `validate.idle_minutes`.
      redo: stages whose outputs are replaced for checkpoints that have no score yet.

    Returns:
      What `nerl.json` holds of each checkpoint, by step.

    Raises:
      InputError: no checkpoint, one that was named and is damaged, a folder that holds
        scores by other keys, or what prediction, decoding and scoring refuse.
    """
    named = optional(checkpoint_path)
    if watch and named:
        raise InputError("--watch follows a whole run; leave --checkpoint out")
    workflow.refuse_own(config, "validate", ("qc.input", "mask.report"))
    place = run_dir.validation
    with lock.held(place.lock), signals.ending():
        rows = CheckpointScores(config, place, run_dir.logs / "validate")
        _sweep(place, rows)
        with contextlib.closing(rows):
            if watch:
                _follow(config, run_dir, rows, redo)
            else:
                _score_all(config, run_dir, named, rows, redo)
            return rows.sorted()


def _score_all(
    config: Config,
    run_dir: Run,
    named: str,
    rows: CheckpointScores,
    redo: Sequence[str],
) -> None:
    items = checkpoint.weight_items(config.predict.weights)
    newest = checkpoint.find(named or run_dir.path, items)
    for folder in [newest] if named else _to_score(run_dir):
        _score_new(config, run_dir, folder, rows, redo)


def _to_score(run_dir: Run) -> list[pathlib.Path]:
    """The run's checkpoints, and own copies of those that training has deleted since."""
    folders = checkpoint.numbered(run_dir.validation.checkpoints)
    found = {checkpoint.step_of(folder): folder for folder in folders}
    for folder in checkpoint.numbered(run_dir.checkpoints):
        found[checkpoint.step_of(folder)] = folder
    return [found[step] for step in sorted(found)]


def _sweep(place: ValidationDir, rows: CheckpointScores) -> None:
    """Removes the copies that a kill left half made, or behind its score."""
    for copy in place.checkpoints.glob("*"):
        scored = copy.name.isdigit() and rows.has(int(copy.name))
        if scored or copy.name.endswith(_HALF):
            shutil.rmtree(copy)


def _follow(
    config: Config, run_dir: Run, rows: CheckpointScores, redo: Sequence[str]
) -> None:
    place, poll = run_dir.validation, config.validate.poll_seconds
    idle = 60 * config.validate.idle_minutes
    last = time.monotonic()
    while not place.stop.exists():
        # Oldest first, and one for each look: training keeps only some.
        for folder in _to_score(run_dir):
            if _score_new(config, run_dir, folder, rows, redo):
                last = time.monotonic()
                break
        else:
            final = _final_step(config, run_dir)
            if rows.has(final) or final in rows.failures:
                logging.info("training is over and scored")
                return
            if 0 < idle < time.monotonic() - last:
                logging.info("no new checkpoint for %.1f minutes", idle / 60)
                return
            time.sleep(poll)
    logging.info("stopped by %s", place.stop)
    place.stop.unlink()


def _final_step(config: Config, run_dir: Run) -> int:
    """`train.steps` as the run itself was started with."""
    if not run_dir.config.exists():
        return config.train.steps
    advice = "start --mode=train on the run, which writes it again"
    return records.read_json(run_dir.config, {"train.steps": whole(1)}, advice)[
        "train.steps"
    ]


def _score_new(
    config: Config,
    run_dir: Run,
    folder: pathlib.Path,
    rows: CheckpointScores,
    redo: Sequence[str],
) -> bool:
    """Scores one checkpoint, unless it is scored, unfinished or gone; whether it did."""
    step = checkpoint.step_of(folder)
    if rows.has(step) or step in rows.failures:
        return False
    if not checksums.finished(folder):
        if step not in rows.unsealed:
            logging.info("checkpoint %s is left out until training seals it", folder)
        rows.unsealed.add(step)
        return False
    found = _own_copy(config, folder, run_dir.validation)
    if found is None:
        return False
    problem = checkpoint.problem_of(
        found, checkpoint.weight_items(config.predict.weights)
    )
    if problem:
        logging.warning("checkpoint %s %s; it is left out", folder, problem)
        rows.failures.add(step)
        shutil.rmtree(found)
        return False
    started = time.monotonic()
    row = _score(config, run_dir.validation, found, redo)
    row["seconds"] = round(time.monotonic() - started, 1)
    rows.add(row)
    first = next(name for name in ("nerl", "adapted_rand_error") if name in row)
    called = {"nerl": "NERL", "adapted_rand_error": "adapted Rand error"}[first]
    logging.info(
        "step %d: %s %.4f, %.4f as tuned",
        row["step"],
        called,
        row[first],
        row[f"best_{first}"],
    )
    shutil.rmtree(found)
    return True


def _own_copy(
    config: Config, folder: pathlib.Path, place: ValidationDir
) -> pathlib.Path | None:
    """The weights of a checkpoint, out of reach of training, which deletes; None if it did."""
    copy = place.checkpoints / folder.name
    if copy.exists():
        return copy
    partial = copy.with_name(copy.name + _HALF)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for source in folder.iterdir():
            if source.is_file():
                shutil.copyfile(source, partial / source.name)
        for item in (*checkpoint.weight_items(config.predict.weights), "config"):
            shutil.copytree(folder / item, partial / item)
    except (FileNotFoundError, shutil.Error):
        shutil.rmtree(partial)
        if checksums.finished(folder):
            raise
        logging.info("checkpoint %s was deleted before it was read", folder)
        return None
    os.replace(partial, copy)
    return copy


def _score(
    config: Config,
    place: ValidationDir,
    found: pathlib.Path,
    redo: Sequence[str],
) -> Row:
    study = Run(place.path).tune(checkpoint.step_of(found))
    split = split_of(config, "val")
    out = study.prediction(split.name)
    raw = out.raw("zarr", config.predict.channels)
    # One of each for every checkpoint, whatever files the keys name.
    outputs = NamedOutputs(prediction=str(raw), redo=tuple(redo))
    decoded = NamedOutputs(redo=tuple(redo))
    later = replacements.of_segmentation(config, out, decoded)
    best = tuning.run(config, study, found, split, outputs, later)
    # By the truth that was tuned on, whatever an evaluation is asked for.
    truth = tuning.truth_of(config, split)
    facts = workflow.decode_and_score(
        config,
        out,
        raw,
        split,
        truth,
        "decode.threshold",
        decoded,
        metrics=("auto",),
    )
    if not config.validate.keep:
        _delete_bulky(out)
        _delete_bulky(VolumeDir(study.path))
    names = _OF_SKELETONS if truth.skeleton else _OF_LABELS
    score = facts["skeletons" if truth.skeleton else "dense"]
    tuned = best["scores"]
    row: Row = {
        "step": checkpoint.step_of(found),
        "weights": config.predict.weights,
        **facts.get("parameters", {"threshold": facts["threshold"]}),
    }
    row |= {name: score[name] for name in names}
    row |= {f"best_{name}": tuned[name] for name in names if name in tuned}
    return row | {f"best_{k}": v for k, v in best["decoding_params"].items()}


def _delete_bulky(place: VolumeDir) -> None:
    for pattern in _BULKY:
        for path in place.path.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
