"""How the stages follow one another on the test and validation volumes.

predict -> qc -> mask -> decode -> evaluate, each stage on files that the one before wrote.
PyTC composes the same stages inside one process that holds the whole volume, and applies
the mask in testing but not in tuning; here both go through `affinity_mask`.
"""

import functools
import pathlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import logging

from nisbjax.artifacts import Run, VolumeDir
from nisbjax.checkpoint import checkpoint
from nisbjax.errors import InputError
from nisbjax.keys.checks import optional
from nisbjax.modes import evaluation, replacements, segmentation, tuning
from nisbjax.modes.outputs import OWN, NamedOutputs
from nisbjax.modes.prediction import predict
from nisbjax.modes.quality import affinity_mask, check_mask
from nisbjax.modes.volumes import (
    Split,
    predicted_image,
    require_root,
    split_of,
    split_with,
    within_box_of_tested,
)
from nisbjax.store import files
from nisbjax.store.formats import is_there
from nisbjax.store.regions import part_like
from nisbjax.store.volume import open_affinities, open_image, open_labels
from nisbjax.typing import Config, DecodeValues

if TYPE_CHECKING:  # stages are imported when they are asked for
    from nisbjax.evaluate.truth import Truth

# What a mode makes itself, so that naming it would mix volumes.
_OWN = ("qc.input", "mask.report", "decode.input", "evaluate.segmentation")


def find_checkpoint(config: Config, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """The checkpoint that was named, or the newest of the run, if its weights are sound.

    The log says which, unless that is the one that was named: a mode of several stages
    looks for it once, and names it to each of them.

    Raises:
      InputError: none.
    """
    items = checkpoint.weight_items(config.predict.weights)
    named = optional(checkpoint_path)
    found = checkpoint.find(named or run_dir.path, items)
    if not named or found != pathlib.Path(named).absolute():
        logging.info("checkpoint %s", found)
    return found


def test_dir(config: Config, run_dir: Run, checkpoint_path: str) -> VolumeDir:
    """Where the files of the test volume stand, for one checkpoint."""
    step = checkpoint.step_of(find_checkpoint(config, run_dir, checkpoint_path))
    return run_dir.test(step, split_of(config, "test").name)


def test(
    config: Config,
    run_dir: Run,
    checkpoint_path: str,
    *,
    parameters: DecodeValues | None = None,
    threshold_origin: str = "",
    given: Collection[str] = (),
    redo: Sequence[str] = (),
    told: Collection[pathlib.Path] = (),
) -> dict[str, Any]:
    """Predicts, checks, masks, decodes and scores the test volume, or `predict.input`.

    Args:
      config: the configuration.
      run_dir: of the checkpoint.
      checkpoint_path: "" for the newest.
      parameters: instead of the keys of `decode` by these names.
      threshold_origin: where they come from, for the record.
      given: keys that the command line set.
      redo: stages whose outputs are replaced, `predict` or `decode`.
      told: outputs of which the log has said that they are replaced.

    Returns:
      What the evaluation's JSON holds.

    Raises:
      InputError: whatever one of the stages refuses; what it can be known by beforehand,
        before anything is written.
    """
    refuse_own(config, "test")
    config = within_box_of_tested(config)
    found = find_checkpoint(config, run_dir, checkpoint_path)
    if parameters is None:
        parameters, threshold_origin = chosen_parameters(
            config, run_dir, str(found), given
        )
    split, place = _check_test(config, run_dir, found, parameters)
    outputs = NamedOutputs.of(config, redo)
    replaced = replacements.of_prediction(config, place, outputs)
    replaced += replacements.of_segmentation(config, place, outputs, parameters)
    replacements.say(redo, replaced, told)
    prediction = predict(config, found, split.image, place, outputs)
    return decode_and_score(
        config,
        place,
        prediction,
        split,
        evaluation.truth_of(config, split),
        threshold_origin,
        outputs,
        parameters=parameters,
    )


def decode_and_score(
    config: Config,
    place: VolumeDir,
    prediction: pathlib.Path,
    split: Split,
    truth: "Truth",
    threshold_origin: str,
    outputs: NamedOutputs = OWN,
    metrics: Sequence[str] = (),
    parameters: DecodeValues | None = None,
) -> dict[str, Any]:
    """Decodes one prediction under its mask, scores it and draws its slices.

    Args:
      config: the configuration, which is recorded as it is.
      place: where everything goes.
      prediction: path of the affinities.
      split: their volume.
      truth: that is scored against.
      threshold_origin: for the record.
      outputs: report, mask and segmentation instead of those of the place, and whether
        this is replaced.
      metrics: instead of those of `evaluate.metrics`.
      parameters: instead of the keys of `decode` by these names. The record keeps the
        keys, which runs that were tuned one by one have in common.

    Returns:
      What the evaluation's JSON holds.

    Raises:
      InputError: whatever one of the stages refuses, before a mask is made where that can
        be known.
    """
    metrics = metrics or config.evaluate.metrics
    chosen = segmentation.with_parameters(config, parameters)
    path = segmentation.output_path(chosen, place, outputs.segmentation)
    redo = "decode" in outputs.redo
    segmentation.check(chosen, path, prediction, redo=redo)
    evaluation.check(metrics, truth, place, open_affinities(prediction))
    mask = affinity_mask(config, place, prediction, split.image, outputs)
    segmentation.decode(chosen, path, prediction, mask, redo=redo)
    facts = evaluation.score(config, place, path, truth, threshold_origin, metrics)
    draw_slices(config, place, prediction, path, split, facts)
    return facts


def _check_test(
    config: Config,
    run_dir: Run,
    found: pathlib.Path,
    parameters: DecodeValues | None,
) -> tuple[Split, VolumeDir]:
    """What mode test works on, if no stage has anything against it.

    Args:
      config, run_dir: as `test`.
      found: the checkpoint.
      parameters: None where a study is to find them.
    """
    config = within_box_of_tested(config)
    split = tested(config)
    place = run_dir.test(checkpoint.step_of(found), split.name)
    for ask in questions(config, split, place, parameters):
        ask()
    return split, place


def questions(
    config: Config,
    split: Split,
    place: VolumeDir,
    parameters: DecodeValues | None = None,
) -> Iterator[Callable[[], Any]]:
    """What mode test asks before it works, each raises InputError where it refuses.

    Args:
      config: within the box that is tested.
      split: the volume.
      place: where its files go.
      parameters: as `test`.
    """
    whole = None if optional(config.predict.roi) else open_image(split.image)

    def score() -> None:
        truth = evaluation.truth_of(config, split)
        evaluation.check(config.evaluate.metrics, truth, place, whole)

    def decode() -> None:
        segmentation.check_keys(segmentation.with_parameters(config, parameters))

    yield score
    yield decode
    yield functools.partial(segmentation.check_output, config)
    outputs = NamedOutputs.of(config)
    yield functools.partial(check_mask, config, place, split.image, outputs)
    yield functools.partial(files.require_file, place.slices_png)


def draw_slices(
    config: Config,
    place: VolumeDir,
    prediction: pathlib.Path,
    segmentation: pathlib.Path,
    split: Split,
    facts: Mapping[str, Any],
) -> None:
    """Image, affinity, segmentation and, where there are labels, truth side by side.

    The scores of the segmentation, of `facts`, stand above it. Of two segmentations of a
    volume each keeps its picture; `slices.png` is the newest.
    """
    from nisbjax.evaluate import score_text
    from nisbjax.viz import plots

    affinities = open_affinities(prediction)
    columns = {
        "image": part_like(open_image(split.image), affinities),
        "affinity (mean)": affinities,
        score_text.title("segmentation", facts): open_labels(segmentation),
    }
    truth = ""
    if split.label and is_there(split.label):
        truth = "truth"
        columns[truth] = part_like(open_labels(split.label), affinities)
    size = config.data.voxel_size_nm
    path = plots.slices(place.slices(segmentation), columns, size, truth=truth)
    with files.replacing(place.slices_png) as newest:
        shutil.copyfile(path, newest)
    logging.info("wrote %s", path)


def chosen_parameters(
    config: Config, run_dir: Run, checkpoint_path: str, given: Collection[str] = ()
) -> tuple[DecodeValues, str]:
    """What decoding takes instead of its keys, and where its threshold comes from.

    Args:
      config: its `decode.threshold_from` decides.
      run_dir: whose study is read.
      checkpoint_path: whose study; "" for the newest.
      given: keys that the command line set; a threshold among them is no default.

    Raises:
      InputError: another word, `study` without a study, or one of another method.
    """
    from nisbjax.decode.methods import method_of

    origin = config.decode.threshold_from
    names = method_of(config.decode).parameters
    with_threshold = "threshold" in names
    if origin == "value":
        names = ("threshold",) if with_threshold else names
        named = any(f"decode.{name}" in given for name in names)
        return {}, "command line" if named else "default"
    if origin != "study":
        threshold = _as_threshold(origin)
        if with_threshold:
            return {"threshold": threshold}, "command line"
        raise InputError(
            f"decode.threshold_from is {origin}, and decode.method="
            f"{config.decode.method} takes no threshold; wanted value or study"
        )
    from nisbjax.tune import best_params

    step = checkpoint.step_of(find_checkpoint(config, run_dir, checkpoint_path))
    path = run_dir.tune(step).best_params
    best = best_params.read(path)
    source = f"tuned on {path}"
    if best.get("test_data_used"):
        source += " (test data)"
    return best_params.parameters(config.decode, best, path), source


def _as_threshold(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"decode.threshold_from is {text!r}; wanted value, study, or a number"
        ) from None


def tune(
    config: Config,
    run_dir: Run,
    checkpoint_path: str,
    redo: Sequence[str] = (),
    later: Sequence[pathlib.Path] = (),
) -> dict[str, Any]:
    """Completes the threshold study on the validation volume; predicts it first if needed.

    With `redo`, a prediction (`predict`) or a study (`tune`) that is there is replaced;
    `later` as of `tuning.run`.

    Returns:
      What `best_params.yaml` holds.
    """
    from nisbjax.tune import stage

    refuse_own(config, "tune")
    stage.check(config.tune, config.decode)
    found = find_checkpoint(config, run_dir, checkpoint_path)
    out = run_dir.tune(checkpoint.step_of(found))
    split = tuning.volume(config)
    outputs = NamedOutputs.of(config, redo)
    return tuning.run(config, out, found, split, outputs, later)


def tune_test(
    config: Config, run_dir: Run, checkpoint_path: str, redo: Sequence[str] = ()
) -> dict[str, Any]:
    """Tunes on the validation volume, then tests with the best threshold.

    `redo` as of `tune` and of `test`. A segmentation that is replaced is named by the best
    parameters, so that the log can name it only once these are found, unless
    `decode.output` does.

    Raises:
      InputError: as `tune` and `test`; what testing refuses, before anything is tuned.
    """
    refuse_own(config, "test")
    found = find_checkpoint(config, run_dir, checkpoint_path)
    _, place = _check_test(config, run_dir, found, None)
    outputs = NamedOutputs.of(config, redo)
    later = replacements.of_prediction(config, place, outputs)
    if outputs.segmentation:
        later += replacements.of_segmentation(config, place, outputs)
    best = tune(config, run_dir, str(found), redo, later)
    return test(
        config,
        run_dir,
        str(found),
        parameters=best["decoding_params"],
        threshold_origin=f"tuned on {tuning.truth_of(config, split_of(config, 'val')).path}"
        + " (test data)" * best["test_data_used"],
        redo=redo,
        told=later,
    )


def tested(config: Config) -> Split:
    """The test volume, or that of `predict.input` with what belongs to it.

    Raises:
      InputError: as `require_root`, or nobody says what that of `predict.input` is scored by.
    """
    image = predicted_image(config)
    if not image:
        split = split_of(config, "test")
        require_root(config, split)
        return split
    found = split_with(config, image, box=optional(config.predict.roi))
    if found is not None:
        return found
    if evaluation.needs_skeleton(config):
        raise InputError(
            f"predict.input is {image}, which is none of the volumes of the configuration; "
            f"{evaluation.NAME_TRUTH}"
        )
    return Split(image, "", "")


def refuse_own(config: Config, mode: str, keys: Sequence[str] = _OWN) -> None:
    """Refuses files in place of what a mode makes itself.

    Raises:
      InputError: one of the keys names a file.
    """
    for key in keys:
        section, name = key.split(".")
        named = optional(config[section][name])
        if named:
            raise InputError(
                f"{key} is {named}, and --mode={mode} makes its own; leave it out, or use "
                f"--mode={section}"
            )
