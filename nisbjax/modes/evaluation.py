"""What the configuration says of an evaluation: its truth, its metrics, what it records.

Which of a key and a volume's own skeleton counts is decided here, and no key decides again
below.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nisbjax.artifacts import VolumeDir
from nisbjax.config import flatten
from nisbjax.keys.checks import optional
from nisbjax.modes.volumes import Split, voxel_size_nm
from nisbjax.store.formats import is_there
from nisbjax.store.volume import Volume
from nisbjax.typing import Config

if TYPE_CHECKING:  # stages are imported when they are asked for
    from nisbjax.evaluate.truth import Truth

NAME_TRUTH = (
    "name its skeleton with --config.evaluate.skeleton=FILE, or labels with "
    "--config.evaluate.label=FILE and --config.evaluate.metrics=adapted_rand"
)


def truth_of(config: Config, split: Split) -> "Truth":
    """What `evaluate` names, or what belongs to a volume where it names nothing.

    A volume's own labels are compared with where a metric asks for dense labels, or where
    there is no skeleton; else they are the ceiling's alone.

    Args:
      config: keys `evaluate`, `data`.
      split: the volume that is scored.
    """
    from nisbjax.evaluate.truth import DENSE_METRICS

    named = config.evaluate
    skeleton = optional(named.skeleton) or split.skeleton
    label = optional(named.label)
    dense = label or ("" if optional(named.skeleton) else split.label)
    wanted = not skeleton or DENSE_METRICS & set(named.metrics)
    if wanted and dense and is_there(dense):
        label = dense
    return own_truth(config, skeleton, label, dense)


def own_truth(
    config: Config, skeleton: str, label: str = "", dense: str = "", **said: str
) -> "Truth":
    """A skeleton and labels by their paths, whatever `evaluate` names; "" for none.

    `said` are `key` and `instead` of `Truth`, for messages.
    """
    from nisbjax.evaluate.truth import Truth

    return Truth(
        skeleton, label, voxel_size_nm(config), config.data.unlabeled, dense, **said
    )


def needs_skeleton(config: Config) -> bool:
    """Whether a volume without a name in the configuration cannot be scored."""
    named = config.evaluate
    if optional(named.skeleton) or ("auto" in named.metrics and optional(named.label)):
        return False
    return bool({"auto", "nerl"} & set(named.metrics))


def check(
    metrics: Sequence[str],
    truth: "Truth",
    place: VolumeDir,
    covered: Volume | None = None,
) -> None:
    """Refuses metrics without what they need, before there is a segmentation to score.

    Args:
      metrics: as `evaluate.metrics`.
      truth: of the volume.
      place: where the scores are to go.
      covered: a volume of the segmentation's shape and region; None where there is none.

    Raises:
      InputError: as `evaluate.stage.check`.
    """
    from nisbjax.evaluate import stage

    # Skeletons that were read are kept there, unless the folder is yet to be made.
    cache = place.path if place.path.is_dir() else None
    stage.check(tuple(metrics), truth, covered, cache)


def score(
    config: Config,
    place: VolumeDir,
    segmentation: str | pathlib.Path,
    truth: "Truth",
    threshold_origin: str,
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Scores a segmentation; see `evaluate.stage.run`.

    Args:
      config: keys `decode.memory_gb`, `evaluate.ceiling`, `name`; all are recorded.
      place: where the scores go.
      segmentation: its path.
      truth: of its volume.
      threshold_origin: for the record.
      metrics: as `evaluate.metrics`.

    Returns:
      What the JSON holds.
    """
    from nisbjax.decode import label_components
    from nisbjax.evaluate import published, stage

    memory_gb = config.decode.memory_gb

    def components(labels: Volume, positions: np.ndarray) -> np.ndarray:
        return label_components.at_nodes(
            labels, positions, memory_gb=memory_gb, unlabeled=truth.unlabeled
        )

    return stage.run(
        tuple(metrics),
        place,
        segmentation,
        truth,
        memory_gb=memory_gb,
        components=components if config.evaluate.ceiling else None,
        setting=published.setting_of(config.name),
        threshold_origin=threshold_origin,
        config=flatten(config.to_dict()),
    )
