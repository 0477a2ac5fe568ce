"""What a mode of the command line ends with: a table, the paths, the disk, what is next.

Lightning ends with a progress bar, and what it wrote has to be looked for.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nisbjax import skeletons
from nisbjax.artifacts import Run, TuneDir, VolumeDir
from nisbjax.checkpoint import checkpoint
from nisbjax.console import quantities
from nisbjax.evaluate import score_table, score_text
from nisbjax.keys.checks import optional
from nisbjax.modes import next_command
from nisbjax.modes.alone import place_of_file
from nisbjax.modes.next_command import Start
from nisbjax.modes.volumes import Split, predicted_image, split_of
from nisbjax.store import disk_use
from nisbjax.store.formats import is_there
from nisbjax.store.volume import open_affinities, open_labels
from nisbjax.typing import Config

_FROM = "decode.threshold_from"
_ROWS = 5  # of a training's losses


class Ending(NamedTuple):
    """What is said of a mode that is through.

    Attributes:
      table: lines.
      paths: what was made, by what it is called.
      folder: whose share of the disk is told.
      mode: that comes next; "" for none.
      keys: of the configuration, that the next one sets.
    """

    table: str
    paths: Mapping[str, str | pathlib.Path]
    folder: pathlib.Path
    mode: str = ""
    keys: Mapping[str, str] = {}


def text(
    mode: str,
    config: Config,
    run: Run,
    result: Any,
    start: Start,
) -> str:
    """What is printed after a mode; "" after one that says for itself what it made.

    Args:
      mode: that is through.
      config: its configuration.
      run: its folder.
      result: what its function returned.
      start: the command that began it.
    """
    if mode not in _ENDINGS:
        return ""
    ending = _ENDINGS[mode](config, run, result)
    said = {**ending.paths, "disk": _disk(ending.folder)}
    if ending.mode:
        said["next"] = next_command.text(
            start,
            run.path,
            ending.mode,
            ending.keys,
            remembered=mode == "train",
        )
    width = max(map(len, said))
    below = "\n" + " " * (width + 2)
    lines = [
        f"{name:>{width}}  {str(value).replace(chr(10), below)}"
        for name, value in said.items()
    ]
    return "\n".join([ending.table, *lines] if ending.table else lines)


def _disk(folder: pathlib.Path) -> str:
    """`1.2 GB in outputs/a`, and below it `0.9 GB raw.h5`, `0.3 GB raw.zarr`."""
    total, largest = disk_use.largest(folder)
    parts = [f"{quantities.size(size)} {path.name}" for size, path in largest if size]
    return "\n".join([f"{quantities.size(total)} in {folder}", *parts])


def _train(config: Config, run: Run, _: None) -> Ending:
    newest = checkpoint.numbered(run.checkpoints)
    paths = {"checkpoint": newest[0]} if newest else {}
    paths["curves"] = run.logs
    tuned = _has_truth(split_of(config, "val"))
    return Ending(_losses(run), paths, run.checkpoints, "tune" if tuned else "test")


def _losses(run: Run) -> str:
    """The last losses that were logged."""
    try:
        lines = run.history.read_text().splitlines()
        logged = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError):
        return ""
    losses: dict[int, dict[str, float]] = {}
    for row in logged:
        losses.setdefault(row["step"], {}).update(row)
    validated = [step for step, row in losses.items() if "val/loss" in row]
    shown = sorted(validated or losses)[-_ROWS:]
    cells = [["step", "loss", "validation"]]
    for step in shown:
        found = (losses[step].get(key) for key in ("train/loss_mean", "val/loss"))
        cells.append([str(step), *("-" if x is None else f"{x:.4f}" for x in found)])
    return score_table.aligned(cells) if shown else ""


def _tune(config: Config, run: Run, best: Mapping[str, Any]) -> Ending:
    chosen = {
        name: score_text.parameter(value)
        for name, value in sorted(best["decoding_params"].items())
    }
    table = score_table.text("chosen", {"": best["scores"]}, first=chosen)
    written = run.path.glob("tune_step=*/best_params.yaml")
    newest = max(written, key=lambda path: path.stat().st_mtime)
    place = TuneDir(newest.parent)
    paths = {"parameters": place.best_params, "curve": place.figure}
    return Ending(table, paths, place.path, "test", {_FROM: "study"})


def _test(config: Config, run: Run, facts: Mapping[str, Any]) -> Ending:
    place, paths = _scored(run, facts)
    origin = facts["threshold_origin"]
    tune = origin == "default" and _has_truth(split_of(config, "val"))
    if predicted_image(config) or optional(config.predict.roi):
        tune = False  # of another volume, or a part of one, nothing is tuned
    return Ending(
        _scores(place.name, facts), paths, place.path, "tune-test" if tune else ""
    )


def _predict(config: Config, run: Run, path: pathlib.Path) -> Ending:
    volume = open_affinities(path)
    table = f"{quantities.shape(volume.shape)} affinities of {volume.dtype}"
    keys = {"predict.input": "", "predict.output": ""}
    if predicted_image(config) or optional(config.predict.output):
        keys["decode.input"] = str(path)
        if not optional(config.decode.output):
            keys["decode.output"] = str(path.with_name(f"{path.stem}_seg.zarr"))
    return Ending(table, {"affinities": path}, path.parent, "decode", keys)


def _decode(config: Config, run: Run, path: pathlib.Path) -> Ending:
    facts = open_labels(path).attributes
    table = (
        f"{facts.get('segments', 0):,} segments, "
        f"{100 * facts.get('background', 0):.1f} % background, the largest of "
        f"{facts.get('largest_segment_voxels', 0):,} voxels"
    )
    foreign = optional(config.decode.input)
    known = _has_truth(split_of(config, "test")) and not foreign
    known = known or bool(optional(config.evaluate.skeleton))
    keys = {"decode.input": "", "decode.output": ""}
    if foreign or optional(config.decode.output):
        keys["evaluate.segmentation"] = str(path)
    return Ending(
        table, {"segmentation": path}, path.parent, "evaluate" if known else "", keys
    )


def _evaluate(config: Config, run: Run, facts: Mapping[str, Any]) -> Ending:
    named = optional(config.evaluate.segmentation)
    own = [place_of_file(run, named)] if named else []
    place, paths = _scored(run, facts, own)
    return Ending(_scores(place.name, facts), paths, place.path)


def _scored(
    run: Run, facts: Mapping[str, Any], places: Sequence[VolumeDir] = ()
) -> tuple[VolumeDir, dict[str, str | pathlib.Path]]:
    """Where the scores of a segmentation stand, and what was made on the way to them."""
    segmentation = pathlib.Path(facts["segmentation"])
    tables = [pathlib.Path(path).parent for path in facts["files"].values()]
    folders = map(VolumeDir, (*tables, segmentation.parent, run.path))
    place = next(
        place
        for place in (*places, *folders)
        if place.evaluation(segmentation, ".txt").exists()
    )
    made = {
        "slices": place.slices(segmentation),
        "report": place.qc_report,
        "segmentation": segmentation,
        "scores": place.evaluation(segmentation, ".txt"),
    }
    return place, {name: path for name, path in made.items() if path.exists()}


def _scores(name: str, facts: Mapping[str, Any]) -> str:
    rows = {}
    for kind, called in (("skeletons", "skeletons"), ("dense", "labels")):
        if facts.get(kind):
            rows[called] = dict(facts[kind])
    return score_table.text(name, rows)


def _has_truth(split: Split) -> bool:
    if split.skeleton and skeletons.is_there(split.skeleton):
        return True
    return bool(split.label) and is_there(split.label)


_ENDINGS: dict[str, Callable[..., Ending]] = {
    "train": _train,
    "tune": _tune,
    "test": _test,
    "tune-test": _test,
    "predict": _predict,
    "decode": _decode,
    "evaluate": _evaluate,
}
