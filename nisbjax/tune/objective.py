"""What a study maximises: one score of its trials, by `tune.objective`.

PyTC and BANIS tune by NERL, which one merger of two large neurons moves by a tenth; the mean
over skeletons orders decoders more steadily. Without skeletons, dense labels are compared
with, which both leave to other tools. Trials keep all scores of their truth, so that a study
tuned by one shows the others too.
"""

import math
from collections.abc import Mapping

import optuna

from nisbjax.errors import InputError
from nisbjax.evaluate.truth import Truth
from nisbjax.tune.database import MADE_FROM

# By word of `tune.objective`: the score's key, its name in a sentence, and -1 where less of
# it is better: every study maximises.
OBJECTIVES = {
    "nerl_mean": ("nerl_mean", "mean over skeletons", 1),
    "nerl": ("nerl", "NERL", 1),
    "voi": ("voi_sum", "VOI", -1),
    "adapted_rand": ("adapted_rand_error", "adapted Rand error", -1),
}
WORDS = ("auto", *OBJECTIVES)
OF_SKELETONS = ("nerl_mean", "nerl")  # and of nothing else
WITHOUT_SPREAD = (
    "voi",
    "adapted_rand",
)  # no deviation over skeletons is known of these
DENSE = "--config.tune.objective=adapted_rand"


def settled(objective: str, skeleton: str) -> str:
    """A word of `OBJECTIVES`: what `auto` becomes with skeletons, and without.

    Args:
      objective: of `WORDS`.
      skeleton: path of the volume's skeletons; "" where none is named.
    """
    if objective != "auto":
        return objective
    return "nerl_mean" if skeleton else "adapted_rand"


def needs_labels(objective: str, skeleton: str) -> bool:
    """Whether trials are compared with dense labels rather than with skeletons.

    VOI is of skeletons where there are any.
    """
    word = settled(objective, skeleton)
    return word == "adapted_rand" or (word == "voi" and not skeleton)


def require_truth(objective: str, truth: Truth) -> None:
    """Refuses an objective without what it is computed from.

    Args:
      objective: of `OBJECTIVES`.
      truth: of skeletons or of dense labels.

    Raises:
      InputError: naming the key that is empty, and another objective.
    """
    if objective in OF_SKELETONS and not truth.skeleton:
        raise InputError(
            f"tune.objective is {objective}, and data.val.skeleton is empty; name NISB's "
            "skeleton.pkl with --config.data.val.skeleton=FILE, or tune by dense labels "
            f"with {DENSE}"
        )
    if not truth.skeleton and not truth.label:
        raise InputError(
            f"tune.objective is {objective}, and there is nothing to compare with: "
            "data.val.label is empty; name dense labels with --config.data.val.label=FILE, "
            "or skeletons with --config.data.val.skeleton=FILE"
        )


def objective_of(study: optuna.Study) -> str:
    """The word; studies of before there was one are of NERL."""
    found = study.user_attrs.get(MADE_FROM)
    word = found.get("metric") if isinstance(found, dict) else None
    return word if word in OBJECTIVES else "nerl"


def name_of(objective: str) -> str:
    """What it is called in a sentence."""
    return OBJECTIVES[objective][1]


def value_of(objective: str, score: Mapping[str, float | int]) -> float:
    """What a study is told of a trial's scores: the higher, the better; NaN for none."""
    key, _, sign = OBJECTIVES[objective]
    return sign * float(score.get(key, math.nan))


def score_of(objective: str, value: float) -> float:
    """The score that a study was told of, with its own sign."""
    return OBJECTIVES[objective][2] * value
