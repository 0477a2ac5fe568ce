"""One trial: what it draws from, what is measured, and how it ends.

PyTC leaves a trial that raises to Optuna, which keeps a traceback; here a trial keeps the
line of its error, and a score that is no number is no score.
"""

import math
from collections.abc import Callable, Mapping

import optuna
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from nisbjax.errors import InputError

ATTRIBUTES = (
    *("erl", "max_erl", "nerl_5", "nerl_20", "nerl_100", "nerl_inf", "nerl_em_erl_50"),
    *("voi_sum", "voi_split", "voi_merge", "n_mergers", "n_non0_mergers", "n_splits"),
    *("n_segments", "coverage", "coverage_length"),
)
DECADES = 100  # whole numbers that span more are drawn on a logarithmic scale
Score = Mapping[str, float | int]
LARGEST = 1 << 40  # voxels of a size
Range = tuple[float, float] | tuple[int, int]
Point = Mapping[str, float | int]  # a threshold and other parameters by name


def measure(score: Callable[[], Score]) -> tuple[Score, str]:
    """A score with a finite NERL, or the line of its error."""
    try:
        found = score()
        if not math.isfinite(found["nerl"]):
            raise InputError(f"its NERL is {found['nerl']}")
        return found, ""
    except Exception as error:  # noqa: BLE001 whatever it was, it belongs to the trial
        return {}, line_of(error)


def attributes_of(found: Score) -> dict[str, float | int]:
    return {name: found[name] for name in ATTRIBUTES if name in found}


def again(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A trial that is RUNNING, to go on with."""
    return Trial(study, trial._trial_id)


def fail(study: optuna.Study, trial: Trial | FrozenTrial, reason: str) -> None:
    if isinstance(trial, FrozenTrial):
        trial = again(study, trial)
    trial.set_user_attr("error", reason)
    study.tell(trial, state=TrialState.FAIL)


def suggest(trial: Trial, name: str, wanted: BaseDistribution) -> None:
    if name in trial.params:  # drawn before its process died
        return
    if isinstance(wanted, IntDistribution):
        trial.suggest_int(name, wanted.low, wanted.high, log=wanted.log)
    elif isinstance(wanted, FloatDistribution):
        trial.suggest_float(name, wanted.low, wanted.high)


def drawn_from(ends: Range) -> IntDistribution | FloatDistribution:
    """What a sampler draws a parameter from."""
    low, high = ends
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=low > 0 and high >= DECADES * low)
    return FloatDistribution(float(low), float(high))


def line_of(error: BaseException) -> str:
    """`TypeName: text` in one line; an InputError's text alone."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, InputError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
