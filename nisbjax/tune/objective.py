"""What a study maximises: one score of its trials, by `tune.objective`.

PyTC and BANIS tune by NERL, which one merger of two large neurons moves by a tenth; the mean
over skeletons orders decoders more steadily. Trials keep all scores, so that a study tuned by
one shows the others too.
"""

import math
from collections.abc import Mapping

import optuna

from nisbjax.tune.database import MADE_FROM

# By word of `tune.objective`: the score's key, its name in a sentence, and -1 where less of
# it is better: every study maximises.
OBJECTIVES = {
    "nerl_mean": ("nerl_mean", "mean over skeletons", 1),
    "nerl": ("nerl", "NERL", 1),
    "voi": ("voi_sum", "VOI", -1),
}


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
