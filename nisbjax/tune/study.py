"""The trials of a study: a grid, each value once, or a sampler over several parameters.

PyTC drives Optuna's GridSampler, for which a FAILed trial counts as visited, so a killed
threshold never returns. Here a value is missing until a trial with it is COMPLETE; missing
values are enqueued, and ask/tell does the rest. A trial that died is taken over, with its
number and what it has drawn, so that a study ends as if nobody had been killed.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import optuna
from absl import logging
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from nisbjax.errors import InputError
from nisbjax.tune import workers
from nisbjax.tune.samplers import SeededTPE, UnitPoints

# PyTC's LICONN tutorial; BANIS sigmoid(0.2 k), k = -1 .. 11; PyTC's present grid
GRIDS = {
    "tutorial": tuple(round(0.40 + 0.06 * k, 2) for k in range(10)),
    "banis": tuple(round(1 / (1 + math.exp(-0.2 * k)), 4) for k in range(-1, 12)),
    "pytc": tuple(round(0.50 + 0.02 * k, 2) for k in range(21)),
}
SAMPLERS = ("grid", "tpe", "random", "qmc")
SAME = 1e-6  # two thresholds closer than this are one
FLAT = 0.02  # a curve that varies by less than this share of its best says little
ATTRIBUTES = (
    *("erl", "max_erl", "nerl_5", "nerl_20", "nerl_100", "nerl_inf", "nerl_em_erl_50"),
    *("voi_sum", "voi_split", "voi_merge", "n_mergers", "n_non0_mergers", "n_splits"),
    *("n_segments", "coverage", "coverage_length"),
)
_MOST_FAILURES = 3  # in a row, of a sampler's trials
_POLL_SECONDS = 0.2  # while other tuners of this host run the last trials

LARGEST = 1 << 40  # voxels of a size
DECADES = 100  # whole numbers that span more are drawn on a logarithmic scale
Score = Mapping[str, float | int]
Range = tuple[float, float] | tuple[int, int]
Point = Mapping[str, float | int]  # a threshold and other parameters by name


def sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler | None:
    """The sampler of a name in `SAMPLERS`; None for the grid, which asks for none."""
    if kind == "tpe":
        return SeededTPE(seed)
    return None if kind == "grid" else UnitPoints(kind, seed)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a finite NERL, in their order."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [t for t in trials if t.value is not None and math.isfinite(t.value)]


def missing(study: optuna.Study, grid: Sequence[Any]) -> list[Any]:
    """The thresholds, or points, of the grid that no COMPLETE trial has, ascending."""
    done = [t.params for t in complete(study)]
    ordered = sorted(grid, key=lambda x: tuple(_point(x).values()))
    return [x for x in ordered if not any(_same(_point(x), params) for params in done)]


def _point(value: Any) -> dict[str, float | int]:
    return dict(value) if isinstance(value, Mapping) else {"threshold": value}


def _same(point: Point, other: Point) -> bool:
    return point.keys() == other.keys() and all(
        abs(value - other[name]) <= SAME for name, value in point.items()
    )


def release_orphans(study: optuna.Study, *, retry: bool) -> int:
    """Frees the trials of this host's dead processes; call it alone (`Reservation.alone`).

    Args:
        study: whose RUNNING trials on this host belong to nobody.
        retry: leave them RUNNING, as nobody's, to be taken over; else they become FAIL.

    Returns:
        How many there were.
    """
    orphans = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if workers.is_here(trial)  # a worker of another host may be alive
    ]
    for trial in orphans:
        if retry:
            # Even if another program has the process id by now.
            _again(study, trial).set_user_attr("process", workers.NOBODY)
        else:
            _fail(study, trial, "its process ended before it did")
    if orphans:
        logging.info("%d killed trials are released", len(orphans))
    return len(orphans)


def require_like(
    study: optuna.Study, space: Mapping[str, Range], *, on_grid: bool
) -> None:
    """Refuses a study whose trials are of other parameters, or drew them in another way.

    Args:
        study: opened.
        space: lowest and highest value of each parameter.
        on_grid: whether they come from a grid or from a sampler.

    Raises:
        InputError: naming the trial, what it drew from, and what was wanted.
    """
    wanted = {
        name: _anything(low) if on_grid else _distribution((low, high))
        for name, (low, high) in space.items()
    }
    for trial in study.get_trials(deepcopy=False):
        problem = None
        if trial.params.keys() - space.keys() or (
            trial.state == TrialState.COMPLETE and trial.params.keys() != space.keys()
        ):
            problem = f"tuned {sorted(trial.params)}, and now it is {sorted(space)}"
        for name, found in trial.distributions.items():
            if name not in wanted or problem:
                continue
            alike = type(found) is type(wanted[name])
            if not alike or getattr(found, "log", 0) != getattr(wanted[name], "log", 0):
                problem = f"drew {name} from {found}, and now it is {wanted[name]}"
        if problem:
            raise InputError(
                f"trial {trial.number} of the study {study.study_name} {problem}: another "
                "program's, or another sampler's or range's; name another with "
                "--config.tune.study=NAME"
            )


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
        for threshold in wanted:
            segments = next(prepared)
            failures += _tell(study, threshold, lambda: score(segments), left)  # noqa: B023
            rest.remove(threshold)
    except BaseException as error:
        # KeyboardInterrupt too: what ends without a score is never a score
        for threshold in rest:
            _tell(study, threshold, _raiser(error), left)
        raise
    if failures:
        raise InputError(
            f"{len(failures)} of {len(wanted)} thresholds failed ({failures[0]}); they "
            "are tried again when --mode=tune runs again"
        )
    return len(wanted)


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
        failures = [*failures, failed] if failed else []
        if len(failures) >= _MOST_FAILURES:
            raise InputError(
                f"{len(failures)} trials in a row failed ({failures[-1]}); see the FAIL "
                f"trials of {study.study_name}"
            )


def _claim(
    study: optuna.Study, n_trials: int, first: Mapping[str, float | int]
) -> Trial | None:
    """A trial for this process: one that a dead process left, else a new one.

    None where all that are wanted are COMPLETE or under way.
    """
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    dead = [trial for trial in running if workers.is_dead(trial)]
    taken = len(running) - len(dead) + _count_complete(trials)
    if taken >= n_trials:
        return None
    if dead:
        logging.info("trial %d is taken over from a dead process", dead[0].number)
        trial = _again(study, dead[0])
    else:
        if first and not trials:
            study.enqueue_trial(dict(first))
        trial = study.ask()
    for name, value in workers.identity().items():
        trial.set_user_attr(name, value)
    return trial


def _may_fall_short(study: optuna.Study, n_trials: int) -> bool:
    """Whether another process of this host, should it die, leaves the study too short."""
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    if _count_complete(trials) >= n_trials or not running:
        return False
    if any(workers.is_here(trial) for trial in running):
        return True
    for trial in running:
        logging.info(
            "trial %d is under way on %s", trial.number, trial.user_attrs["host"]
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
        _suggest(trial, name, _distribution((low, min(high, bound))))
    found, failed = _measure(lambda: score(trial.params))
    try:
        if failed:
            logging.warning("trial %d failed: %s", trial.number, failed)
            _fail(trial.study, trial, failed)
            return failed
        for name, value in _attributes(found).items():
            trial.set_user_attr(name, value)
        trial.study.tell(trial, float(found["nerl"]), skip_if_finished=True)
    except optuna.exceptions.UpdateFinishedTrialError:
        logging.info("trial %d was finished by another process", trial.number)
    return ""


def best(study: optuna.Study) -> FrozenTrial:
    """The COMPLETE trial of the highest NERL, the earliest of equals.

    Raises:
        InputError: none is COMPLETE.
    """
    trials = complete(study)
    if not trials:
        raise InputError(
            f"study {study.study_name} has no complete trial; run --mode=tune"
        )
    return max(trials, key=lambda t: (t.value, -t.number))


def warnings(study: optuna.Study) -> list[str]:
    """What a reader of the best threshold must know: the edge of the grid, a flat curve."""
    trials = [t for t in complete(study) if "threshold" in t.params]
    if len(trials) < 2:
        return []
    top = best(study)
    tried = sorted(t.params["threshold"] for t in trials)
    values = [t.value for t in trials if t.value is not None]
    found = []
    threshold = top.params["threshold"]
    for end, side in ((tried[0], "lowest"), (tried[-1], "highest")):
        if abs(threshold - end) <= SAME:
            found.append(
                f"the best threshold {threshold:g} is the {side} that was tried; the "
                "optimum may lie beyond: extend --config.tune.thresholds"
            )
    spread = max(values) - min(values)
    if spread <= FLAT * max(values):
        found.append(
            f"the curve is flat: NERL varies by {spread:.4f} between thresholds "
            f"{tried[0]:g} and {tried[-1]:g}, so the best one says little"
        )
    return found


def _leftovers(study: optuna.Study, wanted: Sequence[Any]) -> list[FrozenTrial]:
    """Trials that a dead process enqueued or began, of values that are wanted.

    Others become FAIL.
    """
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    taken = [study.ask().number for _ in waiting]  # it takes those that wait
    kept = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in taken and not workers.is_dead(trial):
            continue
        meant = _meant(trial)
        again = any(_same(meant, _meant(other)) for other in kept)
        if not again and any(_same(_point(value), meant) for value in wanted):
            kept.append(trial)
        else:
            _fail(study, trial, "its run ended before it did")
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
    found, failed = _measure(score)
    point = _point(value)
    attributes = workers.identity() | (
        {"error": failed} if failed else _attributes(found)
    )
    trial = None
    begun = next((each for each in left if _same(point, _meant(each))), None)
    if begun is not None:
        left.remove(begun)
        trial = _again(study, begun)
        for name, entry in attributes.items():
            trial.set_user_attr(name, entry)
        for name, number in point.items():
            _suggest(trial, name, _anything(number))
    while trial is None:
        study.enqueue_trial(point, user_attrs=attributes)
        trial = study.ask({name: _anything(x) for name, x in point.items()})
        if not _same(point, trial.params):
            _fail(study, trial, "a tuner of another host enqueued it")
            trial = None
    # one transaction: a trial is COMPLETE with its value, or still RUNNING
    if failed:
        logging.warning("%s failed: %s", point, failed)
        study.tell(trial, state=TrialState.FAIL)
        return [failed]
    study.tell(trial, float(found["nerl"]))
    return []


def _measure(score: Callable[[], Score]) -> tuple[Score, str]:
    """A score with a finite NERL, or the line of its error."""
    try:
        found = score()
        if not math.isfinite(found["nerl"]):
            raise InputError(f"its NERL is {found['nerl']}")
        return found, ""
    except Exception as error:  # noqa: BLE001 whatever it was, it belongs to the trial
        return {}, _line(error)


def _raiser(error: BaseException) -> Callable[[], Score]:
    def again() -> Score:
        raise InputError(_line(error))

    return again


def _attributes(found: Score) -> dict[str, float | int]:
    return {name: found[name] for name in ATTRIBUTES if name in found}


def _again(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A trial that is RUNNING, to go on with."""
    return Trial(study, trial._trial_id)


def _fail(study: optuna.Study, trial: Trial | FrozenTrial, reason: str) -> None:
    if isinstance(trial, FrozenTrial):
        trial = _again(study, trial)
    trial.set_user_attr("error", reason)
    study.tell(trial, state=TrialState.FAIL)


def _suggest(trial: Trial, name: str, wanted: BaseDistribution) -> None:
    if name in trial.params:  # drawn before its process died
        return
    if isinstance(wanted, IntDistribution):
        trial.suggest_int(name, wanted.low, wanted.high, log=wanted.log)
    elif isinstance(wanted, FloatDistribution):
        trial.suggest_float(name, wanted.low, wanted.high)


def _distribution(ends: Range) -> IntDistribution | FloatDistribution:
    """What a sampler draws a parameter from."""
    low, high = ends
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=low > 0 and high >= DECADES * low)
    return FloatDistribution(float(low), float(high))


def _anything(value: Any) -> BaseDistribution:
    """A distribution that holds a value of the grid, the same for all of its values."""
    if isinstance(value, int):
        return IntDistribution(0, LARGEST)
    return FloatDistribution(0.0, 1.0)


def _line(error: BaseException) -> str:
    """`TypeName: text` in one line; an InputError's text alone."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, InputError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
