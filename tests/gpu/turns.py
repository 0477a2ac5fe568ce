"""How a process of `bench.py` talks to it: facts as lines of JSON, and its turn on the device.

A process prepares (imports, compiles) beside others, then asks for its turn and is timed while
all others stand still. A row's `compiled` is when its compilation began and ended; `bench.py`
makes seconds of it, without those in which the process itself stood still.
"""

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator

READY, CHOOSE = {"ready": True}, {"choose": True}


def say(**facts: object) -> None:
    """A row, or part of one, of the table."""
    print(json.dumps(facts), flush=True)


def wait() -> None:
    """Asks for the turn, and waits for it; the next line that is said ends it."""
    say(**READY)
    sys.stdin.readline()


@contextlib.contextmanager
def choosing() -> Iterator[None]:
    """A turn before the process is ready: to measure what it then compiles."""
    say(**CHOOSE)
    sys.stdin.readline()
    yield
    say()


def milliseconds(once: Callable[[], object], repeat: int) -> dict[str, float]:
    """Median and least time of a function that blocks, after two runs that do not count."""
    times = []
    for _ in range(repeat + 2):
        start = time.perf_counter()
        once()
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "ms": round(statistics.median(times[2:]), 3),
        "least_ms": round(min(times[2:]), 3),
    }
