"""How the stages follow one another on the test and validation volumes.

predict -> qc -> mask -> decode -> evaluate, each stage on files that the one before wrote.
PyTC composes the same stages inside one process that holds the whole volume, and applies
the mask in testing but not in tuning; here both go through `affinity_mask`.
"""

import os
import pathlib
import platform
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

from absl import logging

from nisbjax import checkpoint, config
from nisbjax.artifacts import Run, VolumeDir, volume_name
from nisbjax.config import optional
from nisbjax.errors import InputError
from nisbjax.keys import determines
from nisbjax.modes.volumes import Split, image_of, split_of, split_with
from nisbjax.store import files
from nisbjax.store.volume import open_affinities, open_labels

# What a mode makes itself, so that naming it would mix volumes.
_OWN = ("qc.input", "mask.report", "decode.input", "evaluate.segmentation")


def find_checkpoint(settings: Any, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """The checkpoint that was named, or the newest of the run, if its weights are sound.

    Raises:
      InputError: none.
    """
    items = checkpoint.weight_items(settings.predict.weights)
    found = checkpoint.find(optional(checkpoint_path) or run_dir.path, items)
    logging.info("checkpoint %s", found)
    return found


def test_dir(settings: Any, run_dir: Run, checkpoint_path: str) -> VolumeDir:
    """Where the files of the test volume stand, for one checkpoint."""
    step = checkpoint.step_of(find_checkpoint(settings, run_dir, checkpoint_path))
    return run_dir.test(step, split_of(settings, "test").name)


def predict(
    settings: Any, found: pathlib.Path, image: str, place: VolumeDir
) -> pathlib.Path:
    """Affinities of an image by a checkpoint; what is there already is taken."""
    from nisbjax.infer import stage

    return stage.run(settings, stage.load_network(settings, found), image, place)


def affinity_mask(
    settings: Any, place: VolumeDir, prediction: pathlib.Path, image: str
) -> str:
    """The mask that decoding and tuning apply: made by QC, named, or none.

    `decode.affinity_mask`: `auto` scans the prediction and builds the mask from the report;
    a path is taken as it is; "" is no mask.

    Raises:
      InputError: no image is known to make one from, or as `qc.stage.run`.
    """
    chosen = settings.decode.affinity_mask
    if chosen != "auto":
        return optional(chosen)
    from nisbjax.qc import stage

    if not image and not optional(settings.qc.image):
        raise InputError(
            f"{prediction} does not say which image it was made from, so there is none to "
            "make its mask from; name it with --config.qc.image=PATH, or set "
            "--config.decode.affinity_mask= (none)"
        )

    return str(stage.run(settings, place, prediction=prediction, image=image))


def train(
    settings: Any,
    run_dir: Run,
    checkpoint_path: str,
    reset: Sequence[str] = (),
    coordinator: tuple[str, int, int] | None = None,
) -> None:
    """Mode train; notes beside the checkpoints what was asked for, and on what.

    Args:
      settings: the configuration.
      run_dir: gone on with where it holds a checkpoint.
      checkpoint_path: that a new run starts from; "" for none.
      reset: what begins anew then, see `train.start.Origin`.
      coordinator: where this process stands among several, see `hosts.Place`; None to
        look at SLURM's variables.

    Raises:
      InputError: the config, the data or a checkpoint do not fit.
    """
    from nisbjax.parallel import devices, hosts
    from nisbjax.train import stage
    from nisbjax.train.recipe import make_recipe_on, open_training_data
    from nisbjax.train.start import Origin

    origin = Origin.parse(optional(checkpoint_path), reset)
    hosts.join(hosts.Place(*coordinator) if coordinator else None)
    hosts.require_equal(
        f"{run_dir.path.absolute()} {origin} "
        + determines.digest(determines.facts(settings, "weights", "checkpoints")),
        "the processes of this run differ in their folder or configuration; start all of "
        "them with one --workdir and the same flags",
    )
    if origin.path:  # refused before anything is written
        begun = checkpoint.numbered(run_dir.checkpoints)
        hosts.first_decides(lambda: "" if begun else str(checkpoint.find(origin.path)))
    recipe = make_recipe_on(devices.make_mesh(settings.train.mesh), settings)
    open_training_data(settings)
    stage.run(
        settings, run_dir, recipe, origin, lambda: describe_run(settings, run_dir)
    )


def describe_run(settings: Any, run_dir: Run) -> None:
    """Writes config.json, command.txt (one line for each start) and environment.json."""
    config.write(settings, run_dir.config)
    with open(run_dir.command, "a") as file:
        file.write(shlex.join(sys.orig_argv) + "\n")
    packages = ("nisbjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    packages += ("tensorstore", "numpy", "numba")
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
    }
    files.write_json(run_dir.environment, facts)


def test(
    settings: Any,
    run_dir: Run,
    checkpoint_path: str,
    *,
    parameters: Mapping[str, float | int] | None = None,
    threshold_origin: str = "",
    given: Collection[str] = (),
) -> dict[str, Any]:
    """Predicts, checks, masks, decodes and scores the test volume, or `predict.input`.

    Args:
      settings: the configuration.
      run_dir: of the checkpoint.
      checkpoint_path: "" for the newest.
      parameters: instead of the keys of `decode` by these names.
      threshold_origin: where they come from, for the record.
      given: keys that the command line set.

    Returns:
      What the evaluation's JSON holds.

    Raises:
      InputError: whatever one of the stages refuses; what it can be known by beforehand,
        before anything is written.
    """
    from nisbjax.evaluate import stage as evaluation

    _refuse_own(settings, "test")
    found = find_checkpoint(settings, run_dir, checkpoint_path)
    split = _tested(settings)
    evaluation.check(settings, split.skeleton)
    _check_mask(settings)
    step = checkpoint.step_of(found)
    if parameters is None:
        parameters, threshold_origin = chosen_parameters(
            settings, run_dir, checkpoint_path, given
        )
    place = run_dir.test(step, split.name)
    prediction = predict(settings, found, split.image, place)
    return decode_and_score(
        settings, place, prediction, split, parameters, threshold_origin
    )


def decode_and_score(
    settings: Any,
    place: VolumeDir,
    prediction: pathlib.Path,
    split: Split,
    parameters: Mapping[str, float | int],
    threshold_origin: str,
) -> dict[str, Any]:
    """Decodes one prediction under its mask, scores it and draws its slices."""
    from nisbjax.decode import stage as decoding
    from nisbjax.evaluate import stage as evaluation

    mask = affinity_mask(settings, place, prediction, split.image)
    segmentation = decoding.run(
        settings, place, affinities=prediction, mask=mask, parameters=parameters
    )
    facts = evaluation.run(
        settings,
        place,
        segmentation=segmentation,
        skeleton=split.skeleton,
        threshold_origin=threshold_origin,
    )
    draw_slices(settings, place, prediction, segmentation, split)
    return facts


def draw_slices(
    settings: Any,
    place: VolumeDir,
    prediction: pathlib.Path,
    segmentation: pathlib.Path,
    split: Split,
) -> None:
    """Image, affinity, segmentation and, where there are labels, truth side by side."""
    from nisbjax.store.volume import open_image
    from nisbjax.viz import plots

    columns = {
        "image": open_image(split.image),
        "affinity (mean)": open_affinities(prediction),
        "segmentation": open_labels(segmentation),
    }
    if split.label and pathlib.Path(split.label).exists():
        columns["truth"] = open_labels(split.label)
    path = plots.slices(place.slices_png, columns, settings.data.voxel_size_nm)
    logging.info("wrote %s", path)


def chosen_parameters(
    settings: Any, run_dir: Run, checkpoint_path: str, given: Collection[str] = ()
) -> tuple[dict[str, float | int], str]:
    """What decoding takes instead of its keys, and where its threshold comes from.

    Args:
      settings: its `decode.threshold_from` decides.
      run_dir: whose study is read.
      checkpoint_path: whose study; "" for the newest.
      given: keys that the command line set; a threshold among them is no default.

    Raises:
      InputError: another word, `study` without a study, or one of another method.
    """
    from nisbjax.tune import stage

    origin = settings.decode.threshold_from
    if origin == "value":
        return {}, "command line" if "decode.threshold" in given else "default"
    if origin != "study":
        return {"threshold": _as_threshold(origin)}, "command line"
    step = checkpoint.step_of(find_checkpoint(settings, run_dir, checkpoint_path))
    path = run_dir.tune(step).best_params
    best = stage.read_best_params(path)
    source = f"tuned on {path}"
    if best.get("test_data_used"):
        source += " (test data)"
    return stage.tuned_parameters(settings, best, path), source


def _as_threshold(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"decode.threshold_from is {text!r}; wanted value, study, or a number"
        ) from None


def tune(settings: Any, run_dir: Run, checkpoint_path: str) -> dict[str, Any]:
    """Completes the threshold study on the validation volume; predicts it first if needed.

    Returns:
      What `best_params.yaml` holds.
    """
    from nisbjax.decode import stage as decoding
    from nisbjax.tune import scratch, stage

    _refuse_own(settings, "tune")
    stage.check(settings)
    _check_mask(settings)
    found = find_checkpoint(settings, run_dir, checkpoint_path)
    split = split_of(settings, "val")
    named = optional(settings.predict.input)
    if named and os.path.realpath(named) != os.path.realpath(split.image):
        raise InputError(
            f"predict.input is {named}, and thresholds are tuned on {split.image}; leave it "
            "out, or name the volume with --config.data.val.image and .skeleton"
        )
    stage.guard_test_data(settings, split.skeleton, split.image)
    out = run_dir.tune(checkpoint.step_of(found))
    place = out.prediction(split.name)
    prediction = predict(settings, found, split.image, place)
    mask = affinity_mask(settings, place, prediction, split.image)
    keep, image = decoding.open_mask(mask) if mask else (None, None)
    with scratch.trial_folder(out.trials) as folder:

        def decode(parameters: Any) -> pathlib.Path:
            # One trial's segmentation at a time is kept, for each process that tunes.
            shutil.rmtree(folder, ignore_errors=True)
            chosen = settings.copy_and_resolve_references()
            chosen.decode.update({"affinity_mask": "auto", "output": "", "input": ""})
            return decoding.run(
                chosen,
                VolumeDir(folder),
                affinities=prediction,
                mask=mask,
                parameters=parameters,
            )

        return stage.run(
            settings,
            out,
            prediction=prediction,
            skeleton=split.skeleton,
            mask=keep,
            image=image,
            decode=decode,
        )


def tune_test(settings: Any, run_dir: Run, checkpoint_path: str) -> dict[str, Any]:
    """Tunes on the validation volume, then tests with the best threshold."""
    best = tune(settings, run_dir, checkpoint_path)
    found = find_checkpoint(settings, run_dir, checkpoint_path)
    return test(
        settings,
        run_dir,
        str(found),
        parameters=best["decoding_params"],
        threshold_origin=f"tuned on {split_of(settings, 'val').skeleton}"
        + " (test data)" * best["test_data_used"],
    )


def predict_alone(settings: Any, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Mode predict: the test volume, or `predict.input`."""
    found = find_checkpoint(settings, run_dir, checkpoint_path)
    image = optional(settings.predict.input) or split_of(settings, "test").image
    place = run_dir.test(checkpoint.step_of(found), volume_name(image))
    return predict(settings, found, image, place)


def qc_alone(settings: Any, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Mode qc: scans the run's prediction of the test volume, or `qc.input`."""
    from nisbjax.qc import stage

    place = _place(settings, run_dir, checkpoint_path, settings.qc.input)
    named = optional(settings.qc.input)
    prediction = named or place.find_raw(settings.predict.channels)
    image = optional(settings.qc.image) or _predicted_image(settings, prediction, named)
    if not image:
        logging.warning(
            "%s does not say which image it was made from: no border rows; name it with "
            "--config.qc.image",
            prediction,
        )
    return stage.check(settings, place, prediction=prediction, image=image)


def mask_alone(settings: Any, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Mode mask: builds the mask from the run's report, or from `mask.report`."""
    from nisbjax.qc import stage

    place = _place(settings, run_dir, checkpoint_path, settings.mask.report)
    return stage.build(settings, place)


def decode_alone(settings: Any, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Mode decode: the run's prediction of the test volume, or `decode.input`."""
    from nisbjax.decode import stage

    if optional(settings.qc.input):
        raise InputError(
            "qc.input names a file, and --mode=decode makes the mask of what it decodes; "
            "name that with --config.decode.input alone"
        )
    place = _place(settings, run_dir, checkpoint_path, settings.decode.input)
    named = optional(settings.decode.input)
    prediction = pathlib.Path(named or place.find_raw(settings.predict.channels))
    parameters, _ = chosen_parameters(settings, run_dir, checkpoint_path)
    image = ""
    if settings.decode.affinity_mask == "auto":
        image = _predicted_image(settings, prediction, named)
    mask = affinity_mask(settings, place, prediction, image)
    return stage.run(
        settings, place, affinities=prediction, mask=mask, parameters=parameters
    )


def evaluate_alone(settings: Any, run_dir: Run, checkpoint_path: str) -> dict[str, Any]:
    """Mode evaluate: the run's newest segmentation, or `evaluate.segmentation`."""
    from nisbjax.evaluate import stage

    named = optional(settings.evaluate.segmentation)
    place = _place(settings, run_dir, checkpoint_path, named)
    skeleton = optional(settings.evaluate.skeleton)
    if named:
        skeleton = skeleton or _own_skeleton(settings, named)
    else:
        decoded = sorted(
            place.path.glob("decoded_*.zarr"), key=lambda p: p.stat().st_mtime
        )
        if not decoded:
            raise InputError(f"no segmentation in {place.path}; run --mode=decode")
        named = str(decoded[-1])
        skeleton = skeleton or split_of(settings, "test").skeleton
    return stage.run(
        settings, place, segmentation=named, skeleton=skeleton, threshold_origin=""
    )


def _place(settings: Any, run_dir: Run, checkpoint_path: str, named: str) -> VolumeDir:
    """The run's folder itself for a file that was named, else that of the test volume."""
    if optional(named):
        return VolumeDir(run_dir.path)
    return test_dir(settings, run_dir, checkpoint_path)


def _predicted_image(settings: Any, prediction: str | pathlib.Path, named: str) -> str:
    """The image of a prediction: as it says itself, or the test image for the run's own."""
    found = image_of(settings, open_affinities(prediction))
    if found or named:
        return found
    path = split_of(settings, "test").image
    return path if path and pathlib.Path(path).exists() else ""


def _own_skeleton(settings: Any, segmentation: str) -> str:
    """The skeleton of the volume that a segmentation is of; "" where none is needed.

    Raises:
      InputError: it is of none of the configuration's volumes, and NERL is asked for.
    """
    image = image_of(settings, open_labels(segmentation))
    split = split_with(settings, image) if image else None
    if split is not None:
        return split.skeleton
    if "nerl" not in settings.evaluate.metrics:
        return ""
    whose = f"is of {image}, which is" if image else "does not say that it is of one of"
    raise InputError(
        f"{segmentation} {whose} {'none of ' * bool(image)}the volumes of the configuration; "
        "name its skeleton with --config.evaluate.skeleton=FILE"
    )


def _tested(settings: Any) -> Split:
    """The test volume, or that of `predict.input` with what belongs to it."""
    image = optional(settings.predict.input)
    if not image:
        return split_of(settings, "test")
    found = split_with(settings, image)
    if found is not None:
        return found
    if "nerl" in settings.evaluate.metrics and not optional(settings.evaluate.skeleton):
        raise InputError(
            f"predict.input is {image}, which is none of the volumes of the configuration; "
            "name its skeleton with --config.evaluate.skeleton=FILE"
        )
    return Split(image, "", "")


def _refuse_own(settings: Any, mode: str) -> None:
    """Refuses files in place of what a mode makes itself."""
    for key in _OWN:
        section, name = key.split(".")
        named = optional(settings[section][name])
        if named:
            raise InputError(
                f"{key} is {named}, and --mode={mode} makes its own; leave it out, or use "
                f"--mode={section}"
            )


def _check_mask(settings: Any) -> None:
    """Opens a mask that is named, before hours of prediction."""
    from nisbjax.decode import stage

    named = optional(settings.decode.affinity_mask)
    if named and named != "auto":
        stage.open_mask(named)
