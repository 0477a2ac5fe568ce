"""The operations of a network one by one: their candidates' times and errors beside a floor.

What the project measures when it chooses kernels is measured here by the same functions, for a
person to read: XLA as it is, the fastest Pallas kernel and its tile, and how far each is from
float32. The floor of an operation is one read of its arrays and one write of its results, at
the rate that a copy was measured to have.
"""

import math
import time

import jax
import jax.numpy as jnp
import turns

from nisbjax.models.kernels import measure, races, table
from nisbjax.models.kernels.choice import Candidate
from nisbjax.parallel.background import Job, attempt, run_all

EACH_S = 30.0  # that one candidate may compile
TURN_S, GRACE_S = 60.0, 15.0  # that all may be timed, and the last of them besides


def copy_rate(repeat):
    """Bytes read and written in a second by a copy of half a GiB."""
    size = 1 << (28 if jax.default_backend() == "gpu" else 22)
    values = jnp.zeros(size, jnp.float16)
    copy = jax.jit(lambda values: values + jnp.float16(1))
    many = 20  # calls: one alone would count what it takes to begin it

    def copies():
        jax.block_until_ready([copy(values) for _ in range(many)][-1])

    found = turns.milliseconds(copies, repeat)
    return many * 2 * values.nbytes / (found["least_ms"] / 1e3)


def rows(recorder, *, uses, candidates, seconds, repeat):
    """Facts of a row: a line for each use, the largest first, and a table of the fastest.

    Args:
      recorder: that noted the uses of a network.
      uses: how many, of the largest; 0 for all.
      candidates: how many of each, the first ones; 0 for all.
      seconds: to compile them; then as many are timed as a turn has time for.
      repeat: of the copy.
    """
    largest = sorted(recorder.uses, key=races.values, reverse=True)
    due = []
    for use in largest[: uses or None]:
        operation = recorder.operations[use.operation]
        every = operation.candidates(use)
        due.append(races.make(operation, use, every[0], every[: candidates or None]))
    run_all(races.in_order(due), each_s=EACH_S, until=time.monotonic() + seconds)
    turns.wait()
    until = time.monotonic() + TURN_S
    rate = copy_rate(repeat)
    lines, chosen = [], {}

    def time_them():
        while due and time.monotonic() < until:
            race = due.pop(0)  # its programs go with it
            times, is_final = races.times(race, until)
            lines.append(line_of(race, times, rate))
            every = recorder.operations[race.use.operation].candidates(race.use)
            if is_final and set(race.candidates) == set(every):
                chosen[race.use] = races.fastest(race, times)

    # A kernel that does not return costs what would have come after it.
    run_all([Job(time_them)], each_s=math.inf, until=until + GRACE_S)
    return {
        "operations": list(lines),
        "uses": len(largest),
        "chosen": table.noted({}, chosen)["chosen"],
        "copy_tb_per_s": rate / 1e12,
    }


def line_of(race, times, rate):
    """One use; what was not compiled, failed or is wrong has no time."""
    use = race.use
    least = 1e3 * bytes_of(race) / rate
    line = {"operation": use.operation, "arrays": arrays_of(use), "floor_ms": least}
    if not times:
        return line | {"note": race.trial.refused or "was not measured"}
    kernels = [c for c in times if measure.is_pallas(c)]
    best = min(kernels, key=times.__getitem__, default=None)
    line |= measured("xla", race, race.xla, times)
    if best is not None:
        line |= measured("pallas", race, best, times)
        line["tile"] = " ".join(f"{k}={v}" for k, v in best.parameters)
    fastest = min(times, key=times.__getitem__)
    missing = len(race.candidates) - len(times)
    return line | {
        "fastest": fastest.name,
        "times_floor": 1e3 * times[fastest] / max(least, 1e-9),
        "note": f"{missing} of {len(race.candidates)} left out" if missing else "",
        "all_ms": {table.candidate_text(c): 1e3 * s for c, s in times.items()},
    }


def measured(name: str, race, candidate: Candidate, times):
    """Milliseconds of a candidate, and how far it is off."""
    if candidate not in times:
        return {}
    job = race.candidates[candidate]
    error, why = attempt(lambda: race.trial.result().error(job.result))
    said = f"{error:.1e}" if not why else why
    return {f"{name}_ms": 1e3 * times[candidate], f"{name}_error": said}


def arrays_of(use):
    """The first array, which is the largest or as large, and the numbers beside it."""
    shape = "x".join(map(str, use.shapes[0]))
    static = (f"{k}={v}".replace(" ", "") for k, v in use.static)
    others = "" if len(use.shapes) < 2 else "x".join(map(str, use.shapes[1]))
    if use.operation.startswith("mix"):
        others = f"hidden {max(s[-1] for s in use.shapes[2:5])}"
    return " ".join((use.dtypes[0], shape, others, *static)).strip()


def bytes_of(race):
    """Of arrays and results; 0 where nothing was compiled."""
    use = race.use
    moved = sum(
        math.prod(shape) * jnp.dtype(dtype).itemsize
        for shape, dtype in zip(use.shapes, use.dtypes)
    )
    programs = [job.result for job in race.candidates.values() if job.result]
    results = jax.tree.leaves(programs[0].result) if programs else []
    return moved + sum(leaf.size * leaf.dtype.itemsize for leaf in results)
