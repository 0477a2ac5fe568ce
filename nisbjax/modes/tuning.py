"""What the configuration says of a study: its volume, its inputs, how a trial is decoded.

PyTC tunes on whatever volume its configuration names, the test volume among them; here that
needs an explicit word, which the results repeat.
"""

import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nisbjax import skeletons
from nisbjax.artifacts import TuneDir, VolumeDir
from nisbjax.errors import InputError
from nisbjax.keys import determines
from nisbjax.mask import open_mask_for, part_taken
from nisbjax.modes import replacements, segmentation
from nisbjax.modes.evaluation import own_truth
from nisbjax.modes.outputs import OWN, NamedOutputs
from nisbjax.modes.prediction import predict
from nisbjax.modes.quality import affinity_mask, check_mask
from nisbjax.modes.volumes import (
    Split,
    apart,
    predicted_image,
    require_root,
    same_file,
    split_of,
    within_box,
)
from nisbjax.store.formats import is_there
from nisbjax.store.volume import open_affinities
from nisbjax.typing import Config

if TYPE_CHECKING:  # stages are imported when they are asked for
    from nisbjax.evaluate.truth import Truth
    from nisbjax.tune.inputs import Inputs


def run(
    config: Config,
    out: TuneDir,
    found: pathlib.Path,
    split: Split,
    outputs: NamedOutputs = OWN,
    later: Sequence[pathlib.Path] = (),
) -> dict[str, Any]:
    """Completes the study on a volume; predicts it first if needed.

    Args:
      config: the configuration.
      out: where the study stands.
      found: the checkpoint that predicts.
      split: the volume.
      outputs: prediction, report and mask instead of those of the study's folder, and
        whether prediction and study are replaced.
      later: what later stages replace, which the log names with those.

    Returns:
      What `best_params.yaml` holds.

    Raises:
      InputError: whatever one of the stages refuses; what can be known beforehand, before
        anything is written.
    """
    from nisbjax.tune import stage
    from nisbjax.tune.trial_folder import trial_folder

    config = within_box(config, "val")
    redo = "tune" in outputs.redo
    for ask in questions(config, out, split, outputs):
        ask()
    space = stage.check(config.tune, config.decode)
    place = out.prediction(split.name)
    replaced = replacements.of_prediction(config, place, outputs)
    replaced += replacements.of_study(config, out, outputs)
    replacements.say(outputs.redo, [*replaced, *later])
    trial = segmentation.with_parameters(config, space.widest)
    prediction = predict(config, found, split.image, place, outputs)
    known = _inputs(config, split, prediction)
    stage.check_study(config.tune, config.decode, out, known, redo=redo)
    path = segmentation.path_in(trial, VolumeDir(out.trials))
    segmentation.check(trial, path, prediction)
    mask = affinity_mask(config, place, prediction, split.image, outputs)
    with trial_folder(out.trials) as folder:

        def decode_whole(parameters: Mapping[str, float | int]) -> pathlib.Path:
            # One trial's segmentation at a time is kept, for each process that tunes.
            shutil.rmtree(folder, ignore_errors=True)
            chosen = segmentation.with_parameters(config, parameters)
            path = segmentation.path_in(chosen, VolumeDir(folder))
            return segmentation.decode(chosen, path, prediction, mask, told=False)

        return stage.run(
            config.tune,
            config.decode,
            out,
            _inputs(config, split, prediction, mask),
            seed=config.seed,
            decode_whole=decode_whole,
            redo=redo,
        )


def _require_redone(config: Config, out: TuneDir, outputs: NamedOutputs) -> None:
    """Refuses to replace the prediction that a study scored, and to keep the study.

    Raises:
      InputError: saying how both are replaced.
    """
    from nisbjax.tune import stage
    from nisbjax.tune.place import file_of

    if "predict" not in outputs.redo or "tune" in outputs.redo:
        return
    study = file_of(stage.storage_of(config.tune, out))
    if study is not None and study.exists():
        raise InputError(
            f"--redo=predict replaces what the study in {study} scored; give "
            "--redo=predict,tune, or name another study with --config.tune.study=NAME"
        )


def questions(
    config: Config, out: TuneDir, split: Split, outputs: NamedOutputs = OWN
) -> Iterator[Callable[[], Any]]:
    """What a study asks before it works, each raises InputError where it refuses.

    Args:
      config: within the box that is tuned on.
      out, split, outputs: as `run`.
    """
    from nisbjax.tune import stage

    def study() -> None:
        known, redo = _inputs(config, split), "tune" in outputs.redo
        stage.check_study(config.tune, config.decode, out, known, redo=redo)

    def decode() -> None:
        space = stage.check(config.tune, config.decode)
        segmentation.check_keys(segmentation.with_parameters(config, space.widest))

    yield functools.partial(_require_redone, config, out, outputs)
    skeleton = truth_of(config, split).skeleton
    yield functools.partial(guard_test_data, config, skeleton, split.image)
    yield study
    yield decode
    place = out.prediction(split.name)
    yield functools.partial(check_mask, config, place, split.image, outputs)


def guard_test_data(config: Config, skeleton: str, image: str = "") -> bool:
    """Whether skeletons or image are the test volume's, which needs an explicit word.

    Args:
      config: keys `data.root`, `data.test`, `tune.allow_test_data`.
      skeleton: path of `skeleton.pkl`.
      image: path of the image; "" where it is not known.

    Raises:
      InputError: they are, without `tune.allow_test_data`.
    """
    test = split_of(config, "test")
    if apart(config, "val", "test"):
        return False
    same = skeleton if _same_file(skeleton, test.skeleton) else ""
    if not same and image and test.image and is_there(image):
        same = image * same_file(image, test.image)
    if same and not config.tune.allow_test_data:
        raise InputError(
            f"{same} belongs to the test volume, which thresholds are not chosen on; "
            "name the validation volume, or set --config.tune.allow_test_data=True, "
            "which the results will say"
        )
    return bool(same)


def volume(config: Config) -> Split:
    """The validation volume, which mode tune tunes on.

    Raises:
      InputError: `predict.input` names another image, or as `require_root`.
    """
    split = split_of(config, "val")
    require_root(config, split)
    named = predicted_image(config)
    if named and not same_file(named, split.image):
        raise InputError(
            f"predict.input is {named}, and thresholds are tuned on {split.image}; leave it "
            "out, or name the volume with --config.data.val.image and .skeleton"
        )
    return split


def truth_of(config: Config, split: Split) -> "Truth":
    """Skeletons, or dense labels where `tune.objective` asks for them or there are none."""
    from nisbjax.tune.objective import DENSE, needs_labels

    dense = needs_labels(config.tune.objective, split.skeleton)
    return own_truth(
        config,
        "" if dense else split.skeleton,
        split.label if dense or not split.skeleton else "",
        key="data.val.skeleton",
        instead=f"tune by dense labels with {DENSE}",
    )


def _inputs(
    config: Config,
    split: Split,
    prediction: pathlib.Path | None = None,
    mask: str = "",
) -> "Inputs":
    """What a study tunes on, as far as it is there."""
    from nisbjax.decode.masked_edges import MaskedEdges
    from nisbjax.decode.stage import edge_offset
    from nisbjax.tune.inputs import Inputs

    truth = truth_of(config, split)
    determined_by = determines.facts(config, "study")
    if prediction is None:
        return Inputs("", truth, determined_by)
    affinities = open_affinities(prediction)
    opened, image = open_mask_for(mask, affinities) if mask else (None, None)
    edges = MaskedEdges(
        edge_offset(config.data.edge_stored_at, affinities),
        opened,
        image,
        config.decode.mask_edges,
    )
    source = affinities.attributes.get("source", "")
    on_test = guard_test_data(config, truth.skeleton, source)
    part = part_taken(mask, affinities) if mask else None
    return Inputs(str(prediction), truth, determined_by, edges, on_test, mask, part)


def _same_file(a: str, b: str) -> bool:
    both = skeletons.is_there(a) and skeletons.is_there(b)
    return both and skeletons.content_hash(a) == skeletons.content_hash(b)
