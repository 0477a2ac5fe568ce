"""One trial: whose it is, what it draws from, what is measured, and how it ends.

Every RUNNING trial carries host and process in its attributes, and when the process started,
since a process id is used again; PyTC leaves trials of killed processes RUNNING for ever.
A trial that raises keeps the line of its error, where Optuna keeps a traceback, and a score
that is no number is no score.
"""

import math
import os
import socket
from collections.abc import Callable, Mapping

import optuna
from absl import logging
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from nisbjax.errors import InputError
from nisbjax.store import processes
from nisbjax.tune.objective import name_of, score_of, value_of

ATTRIBUTES = (
    *(
        "nerl",
        "erl",
        "max_erl",
        "nerl_5",
        "nerl_20",
        "nerl_100",
        "nerl_inf",
        "nerl_em_erl_50",
    ),
    *("voi_sum", "voi_split", "voi_merge", "n_mergers", "n_non0_mergers", "n_splits"),
    *("n_segments", "coverage", "coverage_length", "nerl_mean", "nerl_sd"),
    *("adapted_rand_error", "adapted_rand_precision", "adapted_rand_recall"),
)
DECADES = 100  # whole numbers that span more are drawn on a logarithmic scale
Score = Mapping[str, float | int]
LARGEST = 1 << 40  # voxels of a size
Range = tuple[float, float] | tuple[int, int]
Point = Mapping[str, float | int]  # a threshold and other parameters by name


def identity() -> dict[str, str | int]:
    """Attributes of a trial that this process runs.

    The host comes last: who reads a trial half marked takes it for nobody's.
    """
    own = os.getpid()
    return {
        "process": own,
        "started": processes.started(own),
        "host": socket.gethostname(),
    }


def nobody() -> dict[str, str | int]:
    """Attributes of a trial that has been released: no process, of this host."""
    return {"process": 0, "host": socket.gethostname()}


def is_here(trial: FrozenTrial) -> bool:
    """Whether a trial is a process' of this host, or nobody's."""
    host = trial.user_attrs.get("host")
    return not host or host == socket.gethostname()


def is_dead(trial: FrozenTrial) -> bool:
    """Whether the process of a RUNNING trial is known to be gone.

    Call it while no other process of this host claims a trial, and this one runs none.
    Nothing is known of processes of other hosts.
    """
    if not is_here(trial):
        return False
    process = trial.user_attrs.get("process")
    if not trial.user_attrs.get("host") or not isinstance(process, int):
        return True  # killed between asking for the trial and saying whose it is
    if process <= 0 or process == os.getpid():
        return True
    began = trial.user_attrs.get("started")
    return not processes.runs(process, began if isinstance(began, int) else 0)


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
        if every_host or is_here(trial)
    ]
    for trial in orphans:
        if retry:
            # Even if another program has the process id by now.
            for name, value in nobody().items():
                resumed(study, trial).set_user_attr(name, value)
        else:
            fail(study, trial, "its process ended before it did")
    if orphans:
        logging.info("%d killed trials are released", len(orphans))
    return len(orphans)


def measure(score: Callable[[], Score], objective: str = "nerl") -> tuple[Score, str]:
    """A score whose NERL, if it has one, and objective are finite, or its error's line."""
    try:
        found = score()
        own = ("nerl",) if "nerl" in found else ()
        for word in dict.fromkeys((*own, objective)):
            value = value_of(word, found)
            if not math.isfinite(value):
                raise InputError(f"its {name_of(word)} is {score_of(word, value)}")
        return found, ""
    except Exception as error:  # noqa: BLE001 whatever it was, it belongs to the trial
        return {}, line_of(error)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a finite value, in their order."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [t for t in trials if t.value is not None and math.isfinite(t.value)]


def attributes_of(found: Score) -> dict[str, float | int]:
    return {name: found[name] for name in ATTRIBUTES if name in found}


def scores_of(trial: FrozenTrial) -> dict[str, float | int]:
    """The scores of a COMPLETE trial; one that did not keep its NERL has it as its value."""
    found = attributes_of(trial.user_attrs)
    if not {"nerl", "adapted_rand_error"} & found.keys():
        return {"nerl": trial.value or 0.0, **found}
    return found


def resumed(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A RUNNING trial, to draw what it has not drawn yet and to end it."""
    return Trial(study, trial._trial_id)


def fail(study: optuna.Study, trial: Trial | FrozenTrial, reason: str) -> None:
    if isinstance(trial, FrozenTrial):
        trial = resumed(study, trial)
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
