"""The candidates of one use side by side: compiled, compared with float32, and timed.

Source: the autotuning of XLA and of Triton. We differ in what takes part: only what was
compiled in time and is right.
"""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import logging

from nisbjax.models.kernels import programs
from nisbjax.models.kernels.choice import Candidate, Operation, Use
from nisbjax.parallel.background import Job, attempt

_GAIN = 0.97  # of XLA's time: what is not clearly faster is not taken


class Race(NamedTuple):
    """One use: what it is tried with, and its candidates, compiled or not yet.

    Attributes:
      use: that is computed.
      xla: how it is computed by XLA as it is.
      trial: `programs.compiled_trial`.
      candidates: `programs.compiled`, in their order; XLA as it is may be among them.
    """

    use: Use
    xla: Candidate
    trial: Job
    candidates: dict[Candidate, Job]


def make(
    operation: Operation, use: Use, xla: Candidate, candidates: Sequence[Candidate]
) -> Race:
    """A race of which nothing is compiled yet.

    Args:
      operation: of the use.
      use: that is computed.
      xla: how it is computed by XLA as it is.
      candidates: that take part.
    """
    trial = functools.partial(programs.compiled_trial, operation, xla, use)
    return Race(
        use,
        xla,
        Job(trial),
        {
            c: Job(functools.partial(programs.compiled, operation, c, use))
            for c in candidates
        },
    )


def in_order(races: Sequence[Race]) -> list[Job]:
    """What is compiled first: a second candidate is due with the first of a quarter's size.

    So many values does each level of a network have of the one above it.
    """
    most = max((values(race.use)[0] for race in races), default=0)
    due = []
    for race in races:
        later = math.log(most / values(race.use)[0], 4)
        jobs = (race.trial, *race.candidates.values())
        due += [(later + rank, job) for rank, job in enumerate(jobs)]
    return [job for _, job in sorted(due, key=lambda pair: pair[0])]


def values(use: Use) -> tuple[int, str]:
    """How much there is to compute; equal ones in a fixed order."""
    return max(1, sum(map(math.prod, use.shapes))), str(use)


def said(use: Use) -> str:
    """A use for the log."""
    arrays = [f"{d}{list(shape)}" for shape, d in zip(use.shapes, use.dtypes)]
    return f"{use.operation}({', '.join(arrays)})"


def winner(race: Race, until: float) -> tuple[Candidate | None, bool]:
    """The fastest candidate that is right, and whether all others were decided.

    None where there is none, or time ran out. One that is alone is compared, and not timed.

    Args:
      race: as far as it was compiled.
      until: the deadline, by `time.monotonic`.
    """
    rivals = [c for c in race.candidates if c != race.xla]
    needed = [
        race.trial,
        *(race.candidates[c] for c in race.candidates if c == race.xla),
    ]
    some = any(race.candidates[c].is_decided for c in rivals)
    if not some or not all(job.is_decided for job in needed):
        return None, False
    found, is_final = times(race, until, clock=len(race.candidates) > 1)
    return fastest(race, found), is_final


def fastest(race: Race, times: Mapping[Candidate, float]) -> Candidate | None:
    """The candidate that is clearly the fastest, or XLA as it is; None if it may not be.

    Args:
      race: of `times`.
      times: seconds of those that are right.
    """
    rivals = [c for c in race.candidates if c != race.xla]
    best = min((c for c in rivals if c in times), key=times.__getitem__, default=None)
    if race.xla not in race.candidates:
        return best
    if best is None or race.xla not in times:
        return race.xla
    return best if times[best] < _GAIN * times[race.xla] else race.xla


def times(
    race: Race, until: float, *, clock: bool = True
) -> tuple[dict[Candidate, float], bool]:
    """Seconds of each candidate that is right, and whether none was left for lack of time.

    Args:
      race: as far as it was compiled; nothing of it is measured without its trial.
      until: the deadline, by `time.monotonic`; one candidate is measured also behind it.
      clock: whether they are timed; they have 0 seconds otherwise.
    """
    if not race.trial.is_decided:
        return {}, False
    begin, why = race.trial.result, race.trial.refused
    trial = None
    if not why:
        trial, why = attempt(begin)  # its arrays may not fit the device
    if trial is None:
        logging.debug("%s: nothing is measured: %s", said(race.use), why)
        # That it took long says nothing of the candidates: a later start has less to compile.
        return {}, not race.trial.is_late
    found: dict[Candidate, float] = {}
    late = ""
    for candidate, job in race.candidates.items():
        why = job.refused
        if not why and not job.result:
            why = late = "was not compiled in time"
        elif not why and found and time.monotonic() > until:
            why = late = "was not measured in time"
        if not why:
            problem, why = attempt(functools.partial(trial.problem, job.result))
            if candidate != race.xla:  # which is right by definition
                why = why or problem
        if not why and not clock:
            found[candidate] = 0.0
        elif not why:
            least = min(found.values(), default=math.inf)
            taken, why = attempt(
                functools.partial(programs.seconds, job.result, trial.arrays, least)
            )
            if not why:
                found[candidate] = taken
                logging.debug(
                    "%s: %s takes %.4f ms", said(race.use), candidate, 1e3 * taken
                )
        if why:
            logging.debug("%s: %s is dropped: %s", said(race.use), candidate, why)
    return found, not late
