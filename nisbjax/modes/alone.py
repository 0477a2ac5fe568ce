"""Modes of one stage alone: on a file that is named, or on the run's own artifact.

PyTC runs the stages one after another only; its scripts for QC and masks stand beside it.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from nisbjax.artifacts import (
    OWN_NAMES,
    Run,
    VolumeDir,
    folder_name,
    folder_of,
    name_among_kinds,
    volume_name,
)
from nisbjax.checkpoint import checkpoint
from nisbjax.errors import InputError
from nisbjax.keys.checks import optional
from nisbjax.modes import evaluation, quality, replacements, segmentation, workflow
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.prediction import predicted
from nisbjax.modes.volumes import (
    Split,
    image_of,
    predicted_image,
    require_root,
    split_of,
    split_with,
    within_box_of_tested,
)
from nisbjax.store import axes
from nisbjax.store.address import is_address
from nisbjax.store.formats import is_there
from nisbjax.store.volume import open_affinities, open_labels
from nisbjax.typing import Config


def predict(
    config: Config, run_dir: Run, checkpoint_path: str, redo: Sequence[str] = ()
) -> pathlib.Path:
    """Mode predict: the test volume, or `predict.input`; replaced with `redo`.

    A region of a file that is named may be any; without one, a box of the data holds.
    """
    found = workflow.find_checkpoint(config, run_dir, checkpoint_path)
    if not (optional(config.predict.input) and optional(config.predict.roi)):
        config = within_box_of_tested(config)
    image = predicted_image(config)
    if not image:
        split = split_of(config, "test")
        require_root(config, split)
        image = split.image
    place = run_dir.test(checkpoint.step_of(found), volume_name(image))
    outputs = NamedOutputs.of(config, redo)
    replacements.say(redo, replacements.of_prediction(config, place, outputs))
    return workflow.predict(config, found, image, place, outputs)


def qc(config: Config, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Mode qc: scans the run's prediction of the test volume, or `qc.input`."""
    from nisbjax.qc import stage

    place = _place(config, run_dir, checkpoint_path, config.qc.input)
    named = optional(config.qc.input)
    prediction = named or predicted(place, config.predict.channels)
    image = optional(config.qc.image) or _predicted_image(config, prediction, named)
    if not image:
        logging.warning(
            "%s does not say which image it was made from: no border rows; name it with "
            "--config.qc.image",
            prediction,
        )
    return stage.check(
        config.qc,
        quality.paths(place, NamedOutputs.of(config)),
        prediction=prediction,
        image=image,
        memory_gb=config.decode.memory_gb,
    )


def mask(config: Config, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Mode mask: builds the mask from the run's report, or from `mask.report`.

    Without `mask.output`, a report that is named goes where its own `out` says.
    """
    from nisbjax.qc import mask_file

    place = _place(config, run_dir, checkpoint_path, config.mask.report)
    named = optional(config.mask.report)
    out = optional(config.mask.output) or ("" if named else str(place.mask))
    return mask_file.from_report(
        named or place.qc_report, image_path=optional(config.qc.image), out=out
    )


def decode(
    config: Config, run_dir: Run, checkpoint_path: str, redo: Sequence[str] = ()
) -> pathlib.Path:
    """Mode decode: the run's prediction of the test volume, or `decode.input`.

    With `redo`, a segmentation that is there is replaced.
    """
    if optional(config.qc.input):
        raise InputError(
            "qc.input names a file, and --mode=decode makes the mask of what it decodes; "
            "name that with --config.decode.input alone"
        )
    named = optional(config.decode.input)
    checkpoint_path = _found(config, run_dir, checkpoint_path, named)
    place = _place(config, run_dir, checkpoint_path, named)
    said = optional(config.decode.axes)
    prediction = pathlib.Path(
        axes.with_axes(named, said) or predicted(place, config.predict.channels)
    )
    parameters, _ = workflow.chosen_parameters(config, run_dir, checkpoint_path)
    chosen = segmentation.with_parameters(config, parameters)
    outputs = NamedOutputs.of(config, redo)
    path = segmentation.output_path(chosen, place, outputs.segmentation)
    segmentation.check(chosen, path, prediction, redo="decode" in redo)
    replacements.say(redo, [path])
    image = ""
    if config.decode.affinity_mask == "auto":
        image = _predicted_image(config, prediction, named)
    mask = quality.affinity_mask(config, place, prediction, image, outputs)
    return segmentation.decode(chosen, path, prediction, mask, redo="decode" in redo)


def evaluate(config: Config, run_dir: Run, checkpoint_path: str) -> dict[str, Any]:
    """Mode evaluate: the segmentation of the keys, the newest, or `evaluate.segmentation`."""
    named = optional(config.evaluate.segmentation)
    checkpoint_path = _found(config, run_dir, checkpoint_path, named)
    place = _place(config, run_dir, checkpoint_path, named)
    split = split_of(config, "test")
    if named:
        split = _own_split(config, named)
    else:
        named = str(_decoded(config, run_dir, checkpoint_path, place))
    truth = evaluation.truth_of(config, split)
    return evaluation.score(config, place, named, truth, "", config.evaluate.metrics)


def _decoded(
    config: Config, run_dir: Run, checkpoint_path: str, place: VolumeDir
) -> pathlib.Path:
    """The run's segmentation of the test volume by these keys, or else its newest one."""
    parameters, _ = workflow.chosen_parameters(config, run_dir, checkpoint_path)
    chosen = segmentation.with_parameters(config, parameters)
    own = segmentation.path_in(chosen, place)
    if own.exists():
        return own
    decoded = sorted(
        place.path.glob("decoded_*.zarr"), key=lambda path: path.stat().st_mtime
    )
    if not decoded:
        raise InputError(f"no segmentation in {place.path}; run --mode=decode")
    logging.info("%s is not there; the newest is scored: %s", own.name, decoded[-1])
    return decoded[-1]


def _found(config: Config, run_dir: Run, checkpoint_path: str, named: str) -> str:
    """The checkpoint of the test volume, looked for once; a file that was named needs none."""
    if named:
        return checkpoint_path
    return str(workflow.find_checkpoint(config, run_dir, checkpoint_path))


def _place(config: Config, run_dir: Run, checkpoint_path: str, named: str) -> VolumeDir:
    """The folder of the test volume; for a file that was named the run's folder itself."""
    named = optional(named)
    if not named:
        return workflow.test_dir(config, run_dir, checkpoint_path)
    return place_of_file(run_dir, named)


def place_of_file(run_dir: Run, named: str) -> VolumeDir:
    """Where what is made of a file that was named goes: the run's folder itself.

    There names hold what tells that file from others, so that nothing of one takes the
    place of another's. A run's own file has its folder for itself.
    """
    name = name_among_kinds(named)
    if is_address(named) or folder_of(named).resolve() != run_dir.path.resolve():
        return VolumeDir(run_dir.path, f"{folder_name(named)}_{name}")
    return VolumeDir(run_dir.path, "" if name.startswith(OWN_NAMES) else name)


def _predicted_image(config: Config, prediction: str | pathlib.Path, named: str) -> str:
    """The image of a prediction: as it says itself, or the test image for the run's own."""
    found = image_of(config, open_affinities(prediction))
    if found or named:
        return found
    path = split_of(config, "test").image
    return path if path and is_there(path) else ""


def _own_split(config: Config, segmentation: str) -> Split:
    """The volume that a segmentation is of; empty where its truth is named or not needed.

    Raises:
      InputError: it is of none of the configuration's volumes, and no truth is named.
    """
    if optional(config.evaluate.skeleton):
        return Split("", "", "")
    labels = open_labels(segmentation)
    image, box = image_of(config, labels), str(labels.attributes.get("box", ""))
    split = split_with(config, image, box=box) if image else None
    if split is not None:
        return split
    if not evaluation.needs_skeleton(config):
        return Split("", "", "")
    whose = f"is of {image}, which is" if image else "does not say that it is of one of"
    raise InputError(
        f"{segmentation} {whose} {'none of ' * bool(image)}the volumes of the configuration; "
        f"{evaluation.NAME_TRUTH}"
    )
