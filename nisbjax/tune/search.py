"""A search: the trials of a sampler, by one process or by several that share the study.

PyTC's workers each call Optuna's `optimize` and count their own trials; here the study's
count, so that it ends with as many as were asked for, whoever is killed meanwhile.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import optuna
from absl import logging
from optuna.trial import FrozenTrial, Trial, TrialState

from nisbjax.console.progress import Progress
from nisbjax.errors import InputError
from nisbjax.tune.objective import objective_of, value_of
from nisbjax.tune.trials import (
    Point,
    Range,
    Score,
    attributes_of,
    drawn_from,
    fail,
    identity,
    is_dead,
    is_here,
    measure,
    resumed,
    suggest,
)

_MOST_FAILURES = 3  # in a row
_POLL_SECONDS = 0.2  # while other tuners of this host run the last trials


def run_sampled(
    study: optuna.Study,
    space: Mapping[str, Range],
    first: Mapping[str, float | int],
    n_trials: int,
    score: Callable[[Point], Score],
    at_most: Mapping[str, str] | None = None,
    turn: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> int:
    """Evaluates what the sampler proposes until the study has `n_trials` COMPLETE ones.

    Several processes may do so on one study at a time. Trials of those that have died are
    taken over, and trials under way in others of this host are waited for.

    Args:
      study: with its sampler.
      space: lowest and highest value of each parameter; integers where both are.
      first: parameters of the first trial, the configured ones; those outside the
        space are left to the sampler.
      n_trials: of the study in all, those of earlier runs among them.
      score: of parameters, with `nerl`.
      at_most: parameters that do not exceed another, `{"low_threshold": "threshold"}`;
        the other comes before them in the space.
      turn: a `with` inside which no other process of this host claims a trial
        (`Reservation.turn`).

    Returns:
      How many trials this call completed.

    Raises:
      InputError: three trials in a row failed.
    """
    inside = {
        name: first[name]
        for name, (low, high) in space.items()
        if name in first and low <= first[name] <= high
    }
    completed, failures = 0, []
    done = _count_complete(study.get_trials(deepcopy=False))
    with Progress("tune", n_trials, "trials", done=min(done, n_trials)) as progress:
        while True:
            with turn():
                trial = _claim(study, n_trials, inside)
            if trial is None:
                if not _may_fall_short(study, n_trials):
                    return completed
                time.sleep(_POLL_SECONDS)
                continue
            failed = _evaluate(trial, space, score, at_most or {})
            completed += not failed
            progress.update(not failed)
            failures = [*failures, failed] if failed else []
            if len(failures) >= _MOST_FAILURES:
                raise InputError(
                    f"{len(failures)} trials in a row failed ({failures[-1]}); see the "
                    f"FAIL trials of {study.study_name}"
                )


def _claim(
    study: optuna.Study, n_trials: int, first: Mapping[str, float | int]
) -> Trial | None:
    """A trial for this process: one that a dead process left, else a new one.

    None where all that are wanted are COMPLETE or under way.
    """
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    dead = [trial for trial in running if is_dead(trial)]
    taken = len(running) - len(dead) + _count_complete(trials)
    if taken >= n_trials:
        return None
    if dead:
        logging.info("trial %d is taken over from a dead process", dead[0].number)
        trial = resumed(study, dead[0])
    else:
        if first and not trials:
            study.enqueue_trial(dict(first))
        trial = study.ask()
    for name, value in identity().items():
        trial.set_user_attr(name, value)
    return trial


def _may_fall_short(study: optuna.Study, n_trials: int) -> bool:
    """Whether another process of this host, should it die, leaves the study too short."""
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    if _count_complete(trials) >= n_trials or not running:
        return False
    if any(is_here(trial) for trial in running):
        return True
    for trial in running:
        logging.warning(
            "trial %d is under way on %s, and counts; if nobody tunes there, run "
            "--mode=tune there, which takes it over",
            *(trial.number, trial.user_attrs["host"]),
        )
    return False


def _count_complete(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state == TrialState.COMPLETE for trial in trials)


def _evaluate(
    trial: Trial,
    space: Mapping[str, Range],
    score: Callable[[Point], Score],
    at_most: Mapping[str, str],
) -> str:
    """Draws what a trial has not drawn yet, scores it and tells; its error, if it failed."""
    for name, (low, high) in space.items():
        bound = trial.params.get(at_most.get(name, ""), high)
        suggest(trial, name, drawn_from((low, min(high, bound))))
    objective = objective_of(trial.study)
    found, failed = measure(lambda: score(trial.params), objective)
    try:
        if failed:
            logging.warning("trial %d failed: %s", trial.number, failed)
            fail(trial.study, trial, failed)
            return failed
        for name, value in attributes_of(found).items():
            trial.set_user_attr(name, value)
        value = value_of(objective, found)
        trial.study.tell(trial, value, skip_if_finished=True)
    except optuna.exceptions.UpdateFinishedTrialError:
        logging.info("trial %d was finished by another process", trial.number)
    return ""
