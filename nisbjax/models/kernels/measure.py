"""The fastest of the candidates that are right, for each operation of a network.

Source: the autotuning of XLA and of Triton, which time what they generated and believe it. We
differ: a candidate is first compared with the same operation in float32, so that a kernel that
never ran on such a device can make nothing wrong there. One that is wrong, fails, takes long to
compile or is not clearly faster leaves XLA as it is.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from absl import logging

from nisbjax.models.kernels import races
from nisbjax.models.kernels.choice import Candidate, Operation, Use
from nisbjax.parallel.background import Job, run_all

DEADLINE_S = 60.0  # for all candidates of a network
_COMPILING = 0.75  # of the deadline; the rest is for running them
_EACH_S = 30.0  # that one may take to compile


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
            logging.warning(
                "%s: no Pallas kernel was found right in time, XLA is taken",
                races.said(use),
            )
    logging.info(
        "chose how %d operations are computed, from %d candidates, in %.1f s:\n"
        "%d by Pallas kernels, %d to be measured again",
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
    due = [
        races.make(operations[use.operation], use, first[use], wanted[use])
        # What matters most comes first, should the time not be enough.
        for use in sorted(wanted.keys() - chosen.keys(), key=races.values, reverse=True)
    ]
    now = time.monotonic()
    run_all(races.in_order(due), each_s=_EACH_S, until=now + _COMPILING * (until - now))
    under_way = []

    def run_races() -> None:
        while due and time.monotonic() < until:
            race = due.pop(0)  # its programs go with it
            under_way[:] = [races.said(race.use)]
            winner, is_final = races.winner(race, until)
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
