"""The fastest of the candidates that are right, for each operation of a network.

Source: the autotuning of XLA and of Triton, which time what they generated and believe it. We
differ: a candidate is first compared with the same operation in float32, so that a kernel that
never ran on such a device can make nothing wrong there. One that is wrong, fails, takes long to
compile or is not clearly faster leaves XLA as it is.
"""

import functools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from absl import logging

from nisbjax.models.kernels import programs
from nisbjax.models.kernels.choice import Candidate, Operation, Use
from nisbjax.parallel.background import Job, attempt, run_all

DEADLINE_S = 60.0  # for all candidates of a network
_COMPILING = 0.75  # of the deadline; the rest is for running them
_EACH_S = 30.0  # that one may take to compile
_GAIN = 0.97  # of XLA's time: what is not clearly faster is not taken


class Measured(NamedTuple):
    """What measuring came to.

    Attributes:
      fastest: the candidate of each use, as far as is known.
      final: those of them that stay so: each candidate was raced, was dropped as wrong or
        failing, or took longer than one may. The deadline cut the others short: a later
        start, which has fewer uses to measure, measures them again.
    """

    fastest: dict[Use, Candidate]
    final: dict[Use, Candidate]


class _Race(NamedTuple):
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


def choose(
    operations: Mapping[str, Operation],
    uses: Iterable[Use],
    known: Mapping[Use, Candidate] | None = None,
    *,
    pallas: bool = False,
    deadline_s: float = DEADLINE_S,
) -> Measured:
    """Measures on this process's first device.

    Args:
      operations: by name, those of the uses.
      uses: of a network; equal ones are measured once.
      known: candidates that were the fastest elsewhere: one that is right is taken without
        a race.
      pallas: whether Pallas kernels alone take part where an operation has some.
      deadline_s: after which what is undecided is left out.

    Returns:
      The fastest candidate of each use; XLA as it is where none is right and faster. A use
      of which the deadline left all undecided is not among them; it takes XLA this time.
    """
    started = time.monotonic()
    until = started + deadline_s
    wanted = {use: operations[use.operation].candidates(use) for use in uses}
    first = {use: candidates[0] for use, candidates in wanted.items()}
    if pallas:
        wanted = {use: _pallas_of(candidates) for use, candidates in wanted.items()}
    checked = {
        use: [candidate]
        for use, candidate in (known or {}).items()
        if candidate in wanted.get(use, ())
    }
    chosen, final = _decided(operations, checked, first, until)
    raced = {use: wanted[use] for use in wanted if use not in chosen}
    others = _decided(operations, raced, first, until)
    chosen, final = chosen | others.fastest, final | others.final
    for use in raced:
        if use not in chosen and first[use] not in wanted[use]:
            logging.warning("%s: no Pallas kernel is right, XLA is taken", _said(use))
    logging.info(
        "chose how %d operations are computed, from %d candidates, in %.1f s: %d by Pallas "
        "kernels, %d to be measured again",
        len(wanted),
        sum(len(candidates) for candidates in (checked | raced).values()),
        time.monotonic() - started,
        sum(is_pallas(candidate) for candidate in chosen.values()),
        len(wanted) - len(final),
    )
    return Measured(chosen, final)


def is_pallas(candidate: Candidate) -> bool:
    """Whether a candidate is a Pallas kernel; its name begins so."""
    return candidate.name.startswith("pallas")


def _pallas_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if is_pallas(c)] or [candidates[0]]


def _decided(
    operations: Mapping[str, Operation],
    wanted: Mapping[Use, Sequence[Candidate]],
    first: Mapping[Use, Candidate],
    until: float,
) -> Measured:
    """The fastest of these candidates; a use of which none is right is left out, too."""
    chosen = {use: c[0] for use, c in wanted.items() if list(c) == [first[use]]}
    final = dict(chosen)
    races = [
        _race(operations[use.operation], use, first[use], wanted[use])
        # What matters most comes first, should the time not be enough.
        for use in sorted(wanted.keys() - chosen.keys(), key=_values, reverse=True)
    ]
    now = time.monotonic()
    run_all(_in_order(races), each_s=_EACH_S, until=now + _COMPILING * (until - now))
    under_way = []

    def run_races() -> None:
        while races and time.monotonic() < until:
            race = races.pop(0)  # its programs go with it
            under_way[:] = [_said(race.use)]
            winner, is_final = _winner(race, until)
            if winner is not None:
                chosen[race.use] = winner
                if is_final:
                    final[race.use] = winner

    running = Job(run_races)
    run_all([running], each_s=math.inf, until=until + _EACH_S)
    if not running.is_decided:
        logging.warning(
            "%s: a kernel does not return; set model.kernels to xla", *under_way
        )
    return Measured(dict(chosen), dict(final))


def _race(
    operation: Operation, use: Use, xla: Candidate, candidates: Sequence[Candidate]
) -> _Race:
    trial = functools.partial(programs.compiled_trial, operation, xla, use)
    return _Race(
        use,
        xla,
        Job(trial),
        {
            c: Job(functools.partial(programs.compiled, operation, c, use))
            for c in candidates
        },
    )


def _in_order(races: Sequence[_Race]) -> list[Job]:
    """What is compiled first: a second candidate is due with the first of a quarter's size.

    So many values does each level of a network have of the one above it.
    """
    most = max((_values(race.use)[0] for race in races), default=0)
    due = []
    for race in races:
        later = math.log(most / _values(race.use)[0], 4)
        jobs = (race.trial, *race.candidates.values())
        due += [(later + rank, job) for rank, job in enumerate(jobs)]
    return [job for _, job in sorted(due, key=lambda pair: pair[0])]


def _values(use: Use) -> tuple[int, str]:
    """How much there is to compute; equal ones in a fixed order."""
    return max(1, sum(map(math.prod, use.shapes))), str(use)


def _said(use: Use) -> str:
    arrays = [f"{d}{list(shape)}" for shape, d in zip(use.shapes, use.dtypes)]
    return f"{use.operation}({', '.join(arrays)})"


def _winner(race: _Race, until: float) -> tuple[Candidate | None, bool]:
    """The fastest candidate that is right, and whether all others were decided.

    None where there is none, or time ran out.
    """
    rivals = [c for c in race.candidates if c != race.xla]
    needed = [
        race.trial,
        *(race.candidates[c] for c in race.candidates if c == race.xla),
    ]
    some = any(race.candidates[c].is_decided for c in rivals)
    if not some or not all(job.is_decided for job in needed):
        return None, False
    times, is_final = _times(race, until)
    best = min((c for c in rivals if c in times), key=times.__getitem__, default=None)
    if race.xla not in race.candidates:
        return best, is_final
    if best is None or race.xla not in times or times[best] >= _GAIN * times[race.xla]:
        return race.xla, is_final
    return best, is_final


def _times(race: _Race, until: float) -> tuple[dict[Candidate, float], bool]:
    """Seconds of each candidate that is right, and whether none was left for lack of time."""
    begin, why = race.trial.result, race.trial.refused
    trial = None
    if not why:
        trial, why = attempt(begin)  # its arrays may not fit the device
    if trial is None:
        logging.debug("%s: nothing is measured: %s", _said(race.use), why)
        return {}, True
    times: dict[Candidate, float] = {}
    late = ""
    for candidate, job in race.candidates.items():
        why = job.refused
        if not why and not job.result:
            why = late = "was not compiled in time"
        elif not why and times and time.monotonic() > until:
            why = late = "was not measured in time"
        if not why:
            problem, why = attempt(functools.partial(trial.problem, job.result))
            if candidate != race.xla:  # which is right by definition
                why = why or problem
        if not why and len(race.candidates) == 1:
            times[candidate] = 0.0  # there is nothing to compare it with
        elif not why:
            fastest = min(times.values(), default=math.inf)
            taken, why = attempt(
                functools.partial(programs.seconds, job.result, trial.arrays, fastest)
            )
            if not why:
                times[candidate] = taken
        if why:
            logging.debug("%s: %s is dropped: %s", _said(race.use), candidate, why)
    return times, not late
