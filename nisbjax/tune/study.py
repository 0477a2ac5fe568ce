"""A study: the values of a grid, each once, which of its trials is best, and what of it holds.

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
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from nisbjax.errors import InputError
from nisbjax.tune import workers
from nisbjax.tune.samplers import SeededTPE, UnitPoints
from nisbjax.tune.search import run_sampled  # noqa: F401 (of this module, to callers)
from nisbjax.tune.trials import (
    LARGEST,
    Point,
    Range,
    Score,
    again,
    attributes_of,
    drawn_from,
    fail,
    line_of,
    measure,
    suggest,
)

# PyTC's LICONN tutorial; BANIS sigmoid(0.2 k), k = -1 .. 11; PyTC's present grid
GRIDS = {
    "tutorial": tuple(round(0.40 + 0.06 * k, 2) for k in range(10)),
    "banis": tuple(round(1 / (1 + math.exp(-0.2 * k)), 4) for k in range(-1, 12)),
    "pytc": tuple(round(0.50 + 0.02 * k, 2) for k in range(21)),
}
SAMPLERS = ("grid", "tpe", "random", "qmc")
SAME = 1e-6  # two thresholds closer than this are one
FLAT = 0.02  # a curve that varies by less than this share of its best says little


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


def release_orphans(
    study: optuna.Study, *, retry: bool, every_host: bool = False
) -> int:
    """Frees the trials of dead processes; call it alone (`Reservation.alone`).

    Args:
        study: whose RUNNING trials on this host belong to nobody.
        retry: leave them RUNNING, as nobody's, to be taken over; else they become FAIL.
        every_host: those of other hosts belong to nobody, too (`Reservation.one_host`): a
            job that was requeued goes on elsewhere.

    Returns:
        How many there were.
    """
    orphans = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        # a worker of another host may be alive
        if every_host or workers.is_here(trial)
    ]
    for trial in orphans:
        if retry:
            # Even if another program has the process id by now.
            for name, value in workers.nobody().items():
                again(study, trial).set_user_attr(name, value)
        else:
            fail(study, trial, "its process ended before it did")
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
        name: _anything(low) if on_grid else drawn_from((low, high))
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
    found, failed = measure(score)
    point = _point(value)
    attributes = workers.identity() | (
        {"error": failed} if failed else attributes_of(found)
    )
    trial = None
    begun = next((each for each in left if _same(point, _meant(each))), None)
    if begun is not None:
        left.remove(begun)
        trial = again(study, begun)
        for name, entry in attributes.items():
            trial.set_user_attr(name, entry)
        for name, number in point.items():
            suggest(trial, name, _anything(number))
    while trial is None:
        study.enqueue_trial(point, user_attrs=attributes)
        trial = study.ask({name: _anything(x) for name, x in point.items()})
        if not _same(point, trial.params):
            fail(study, trial, "a tuner of another host enqueued it")
            trial = None
    # one transaction: a trial is COMPLETE with its value, or still RUNNING
    if failed:
        logging.warning("%s failed: %s", point, failed)
        study.tell(trial, state=TrialState.FAIL)
        return [failed]
    study.tell(trial, float(found["nerl"]))
    return []


def _raiser(error: BaseException) -> Callable[[], Score]:
    def again() -> Score:
        raise InputError(line_of(error))

    return again


def _anything(value: Any) -> BaseDistribution:
    """A distribution that holds a value of the grid, the same for all of its values."""
    if isinstance(value, int):
        return IntDistribution(0, LARGEST)
    return FloatDistribution(0.0, 1.0)
