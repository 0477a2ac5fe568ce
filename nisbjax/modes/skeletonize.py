"""Mode skeletonize: skeletons for labelled volumes that have none.

PyTC and BANIS score by skeletons that somebody else made. Those of the validation and the
test volume go where `data.<split>.skeleton` names them, if it does, so that what comes next
finds them there.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import logging

from nisbjax import skeletons
from nisbjax.artifacts import Run, volume_name
from nisbjax.errors import InputError
from nisbjax.keys import determines
from nisbjax.keys.checks import optional
from nisbjax.modes import replacements
from nisbjax.modes.volumes import same_file, split_of, voxel_size_nm
from nisbjax.store import axes
from nisbjax.store.address import is_address
from nisbjax.store.formats import is_there
from nisbjax.typing import Config


class _Task(NamedTuple):
    labels: str
    output: pathlib.Path
    region: str
    key: str  # that is to name the output in what comes next


def run(
    config: Config, run_dir: Run, _: str, redo: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Mode skeletonize: `skeletonize.label`, or the labels of val and test.

    With `redo`, skeletons that this mode made there are replaced.

    Returns:
      For each volume what `skeletonize.stage.run` returns, with `output`.
    """
    from nisbjax.skeletonize import outputs, stage

    tasks = _tasks(config, run_dir)
    asked = [
        stage.Skeletonizing(
            config.skeletonize,
            task.labels,
            task.output,
            task.region,
            voxel_size_nm(config),
            config.data.unlabeled,
            determines.facts(config, "skeletons"),
            config.cluster,
            redo="skeletonize" in redo,
        )
        for task in tasks
    ]
    for each in asked:
        stage.check(each)
    replaced: list[pathlib.Path] = []
    for task in tasks:
        replaced += [task.output, *outputs.recorded(task.output).values()]
    replacements.say(redo, replaced)
    results = []
    for task, each in zip(tasks, asked, strict=True):
        found = stage.run(each)
        results.append({**found, "output": str(task.output)})
        print(_told(task, found))
    return results


def _told(task: _Task, found: dict[str, Any]) -> str:
    """What was made of one volume, and the flag that names it."""
    rows = {
        "labels": task.labels,
        "skeletons": f"{found['labels'] - found['without_edge']}",
        "too small": f"{found['dust']} labels",
        "one voxel": f"{found['without_edge']} labels, without an edge",
        "in pieces": f"{found['in_pieces']} skeletons that are not connected",
        "nodes": f"{found['nodes']}, {found['length_um']:g} um",
        "file": str(task.output),
    }
    if task.key:
        rows["next"] = f"--config.{task.key}={os.path.abspath(task.output)}"
    return "\n".join(f"{name:>12}  {value}" for name, value in rows.items())


def _tasks(config: Config, run_dir: Run) -> list[_Task]:
    """What is to be made.

    Raises:
      InputError: no labels, skeletons that are there already, one output for two volumes.
    """
    named = optional(config.skeletonize.label)
    output = optional(config.skeletonize.output)
    roi = optional(config.skeletonize.roi)
    if named:
        if not is_there(named):
            raise InputError(f"no labels at {named}, which skeletonize.label names")
        own = run_dir.skeletons(volume_name(named))
        labels = _with_known_axes(config, named)
        return [_Task(labels, pathlib.Path(output or own), roi, "evaluate.skeleton")]
    found = [
        task for name in ("val", "test") for task in _of_split(config, name, run_dir)
    ]
    if not found:
        raise InputError(
            "no labels without skeletons: neither data.val.label nor data.test.label is "
            "there, or both have skeletons already; name labels with "
            "--config.skeletonize.label=FILE"
        )
    if output and len(found) > 1:
        raise InputError(
            f"skeletonize.output is {output}, and there are labels of val and test; name "
            "those meant with --config.skeletonize.label=FILE, or leave the output out"
        )
    if output:
        found = [found[0]._replace(output=pathlib.Path(output))]
    made = {os.path.realpath(task.output): task for task in found}
    for task in found:
        other = made[os.path.realpath(task.output)]
        if (task.labels, task.region) != (other.labels, other.region):
            raise InputError(
                f"{task.output} would hold the skeletons of val and of test; name another "
                "file with --config.data.test.skeleton"
            )
    return found


def _with_known_axes(config: Config, labels: str) -> str:
    """Labels with the axes that are known of them as those of val or test."""
    for split in (split_of(config, name) for name in ("val", "test")):
        if split.label and same_file(split.label, labels):
            return axes.with_axes(labels, axes.split_path(split.label)[1])
    return labels


def _of_split(config: Config, name: str, run_dir: Run) -> list[_Task]:
    """The task of a volume of the configuration; none without labels or with skeletons."""
    from nisbjax.skeletonize import outputs

    split = split_of(config, name)
    if not split.label or not is_there(split.label):
        return []
    is_ours = split.skeleton.endswith(".pkl") and not is_address(split.skeleton)
    key = "" if is_ours else f"data.{name}.skeleton"
    output = run_dir.skeletons(name) if key else pathlib.Path(split.skeleton)
    ours = outputs.parts_folder(output).is_dir()
    if skeletons.is_there(split.skeleton) and not ours:
        logging.info("%s has skeletons, %s", split.label, split.skeleton)
        return []
    box = optional(config.data[name].box)
    return [_Task(split.label, output, optional(config.skeletonize.roi) or box, key)]
