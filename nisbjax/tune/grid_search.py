"""A grid: its values, each in a COMPLETE trial of its own, once.

PyTC drives Optuna's GridSampler, for which a FAILed trial counts as visited, so a killed
threshold never returns. Here a value is missing until a trial with it is COMPLETE; missing
values are enqueued, and ask/tell does the rest. A trial that died is taken over, with its
number and what it has drawn, so that a study ends as if nobody had been killed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optuna
from absl import logging
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from nisbjax.console.progress import Progress
from nisbjax.errors import InputError
from nisbjax.evaluate import score_text
from nisbjax.keys.checks import LARGEST_LOGIT
from nisbjax.tune.objective import objective_of, value_of
from nisbjax.tune.trials import (
    LARGEST,
    Point,
    Score,
    attributes_of,
    complete,
    fail,
    identity,
    is_dead,
    line_of,
    measure,
    resumed,
    suggest,
)

# PyTC's LICONN tutorial; BANIS sigmoid(0.2 k), k = -1 .. 11; PyTC's present grid
GRIDS = {
    "tutorial": tuple(round(0.40 + 0.06 * k, 2) for k in range(10)),
    "banis": tuple(round(1 / (1 + math.exp(-0.2 * k)), 4) for k in range(-1, 12)),
    "pytc": tuple(round(0.50 + 0.02 * k, 2) for k in range(21)),
}
# All other parameters are shares, or whole numbers.
LOGITS = ("attract", "repel", "short", "long")
SAME = 1e-6  # two thresholds closer than this are one


def missing(study: optuna.Study, grid: Sequence[Any]) -> list[Any]:
    """The thresholds, or points, of the grid that no COMPLETE trial has, ascending."""
    done = [t.params for t in complete(study)]
    ordered = sorted(grid, key=lambda x: tuple(_point(x).values()))
    return [x for x in ordered if not any(same(_point(x), params) for params in done)]


def run_grid(
    study: optuna.Study,
    grid: Sequence[Any],
    prepare: Callable[[list[Any]], Iterable[Any]],
    score: Callable[[Any], Score],
) -> int:
    """Evaluates every value of the grid that is missing, each in its own trial.

    Args:
      study: reserved alone, its orphans released.
      grid: thresholds, or points of several parameters.
      prepare: the segments at the nodes for each of some of them, in one pass or more.
      score: of one of them, with `nerl`.

    Returns:
      How many were evaluated.

    Raises:
      InputError: trials failed; they are FAIL, with the error, and stay missing.
    """
    wanted = missing(study, grid)
    left = _leftovers(study, wanted)
    if not wanted:
        return 0
    rest, failures = list(wanted), []
    try:
        prepared = iter(prepare(wanted))
        with Progress("tune", len(wanted), "trials") as progress:
            for threshold in wanted:
                segments = next(prepared)
                failures += _tell(study, threshold, lambda: score(segments), left)  # noqa: B023
                rest.remove(threshold)
                progress.update()
    except Exception as error:
        # A signal that ends the process is none: it leaves the rest to the next run, as a
        # kill does, with the numbers that they would have had.
        for threshold in rest:
            _tell(study, threshold, _raiser(error), left)
        raise
    if failures:
        raise InputError(
            f"{len(failures)} of {len(wanted)} thresholds failed ({failures[0]}); they "
            "are tried again when --mode=tune runs again"
        )
    return len(wanted)


def _leftovers(study: optuna.Study, wanted: Sequence[Any]) -> list[FrozenTrial]:
    """Trials that a dead process enqueued or began, of values that are wanted.

    Others become FAIL.
    """
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    taken = [study.ask().number for _ in waiting]  # it takes those that wait
    kept = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in taken and not is_dead(trial):
            continue
        meant = _meant(trial)
        known = any(same(meant, _meant(other)) for other in kept)
        if not known and any(same(_point(value), meant) for value in wanted):
            kept.append(trial)
        else:
            fail(study, trial, "its run ended before it did")
    return kept


def _meant(trial: FrozenTrial) -> Point:
    """What a trial has drawn, or was enqueued to draw."""
    return trial.params or trial.system_attrs.get("fixed_params", {})


def _tell(
    study: optuna.Study, value: Any, score: Callable[[], Score], left: list[FrozenTrial]
) -> list[str]:
    """One trial of a value of the grid, from the queue; returns its error, if it failed.

    Attributes come with the queue's entry, in one transaction rather than twenty. One of
    those that are left from a dead process is used if it is of this value.
    """
    objective = objective_of(study)
    found, failed = measure(score, objective)
    point = _point(value)
    attributes = identity() | ({"error": failed} if failed else attributes_of(found))
    trial = None
    begun = next((each for each in left if same(point, _meant(each))), None)
    if begun is not None:
        left.remove(begun)
        trial = resumed(study, begun)
        for name, entry in attributes.items():
            trial.set_user_attr(name, entry)
        for name, number in point.items():
            suggest(trial, name, any_value(name, number))
    while trial is None:
        study.enqueue_trial(point, user_attrs=attributes)
        trial = study.ask({name: any_value(name, x) for name, x in point.items()})
        if not same(point, trial.params):
            fail(study, trial, "a tuner of another host enqueued it")
            trial = None
    # one transaction: a trial is COMPLETE with its value, or still RUNNING
    if failed:
        logging.warning("%s failed: %s", score_text.parameters(point), failed)
        study.tell(trial, state=TrialState.FAIL)
        return [failed]
    study.tell(trial, value_of(objective, found))
    return []


def _raiser(error: BaseException) -> Callable[[], Score]:
    def fails() -> Score:
        raise InputError(line_of(error))

    return fails


def any_value(name: str, value: Any) -> BaseDistribution:
    """A distribution that holds a value of the grid, the same for all of its values."""
    if isinstance(value, int):
        return IntDistribution(0, LARGEST)
    lowest, highest = (-LARGEST_LOGIT, LARGEST_LOGIT) if name in LOGITS else (0.0, 1.0)
    return FloatDistribution(lowest, highest)


def _point(value: Any) -> dict[str, float | int]:
    return dict(value) if isinstance(value, Mapping) else {"threshold": value}


def same(point: Point, other: Point) -> bool:
    """Whether two points have the same parameters, as near as a study tells them apart."""
    return point.keys() == other.keys() and all(
        abs(value - other[name]) <= SAME for name, value in point.items()
    )
