"""Work side by side in threads, none of which can hold the process.

XLA compiles without Python's lock, so threads are enough; source: the parallel compilation in
XLA's own autotuner. We differ in trusting nothing to end: each job has a time of its own, all
together a deadline, and the threads are daemons, for which no process waits when it ends (it
would wait for those of `concurrent.futures`). Python ends such a thread when it next takes the
interpreter's lock, which inside a compiler aborts the process: `end_process` is for that.
"""

import atexit
import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

_GRACE_S = 10.0


class Job:
    """A function that a thread of its own calls once.

    Attributes:
      result: of the function; None before it is there.
      refused: why there is none; "" where there is, or where time ran out before.
      is_late: whether it was refused for the time that it took.
    """

    def __init__(self, function: Callable[[], Any]):
        self.result: Any = None
        self.refused = ""
        self.is_late = False
        self._function = function
        self._started = 0.0
        self._done = threading.Event()

    @property
    def is_decided(self) -> bool:
        """Whether there is a result, or is known to be none."""
        return self._done.is_set() or bool(self.refused)

    def start(self, told: threading.Event) -> None:
        """Begins; `told` is set at the end."""
        self._started = time.monotonic()
        _running.add(self)
        threading.Thread(target=self._call, args=(told,), daemon=True).start()

    def give_up_after(self, seconds: float) -> None:
        """Refuses a job that is still running so long after it began."""
        if not self._done.is_set() and time.monotonic() - self._started > seconds:
            self.is_late = not self.refused
            self.refused = self.refused or f"took more than {seconds:g} s"

    def _call(self, told: threading.Event) -> None:
        found, why = attempt(self._function)
        if not self.refused:  # nobody waits for it otherwise
            self.result, self.refused = found, why
        self._done.set()
        _running.discard(self)
        told.set()


_running: set[Job] = set()


def end_process(status: int, *, stopped: bool = False) -> None:
    """Ends the process with a status if a job is still running; returns if there is none.

    What was registered to be done at the end is done.

    Args:
      status: of the process.
      stopped: whether a signal ends it: at once, then, running job or not, for XLA lets
        nobody tidy up before it has compiled what it was compiling.
    """
    if not (_running or stopped):
        return
    atexit.unregister(_wait)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # closed, or none
            stream.flush()
    os._exit(status)


@atexit.register
def _wait() -> None:
    """Of programs that do not know of `end_process`: most compilations end soon."""
    until = time.monotonic() + _GRACE_S
    while _running and time.monotonic() < until:
        time.sleep(0.05)


def run_all(jobs: Iterable[Job], *, each_s: float, until: float) -> None:
    """Returns when all jobs are decided, or at a deadline.

    Args:
      jobs: in the order in which they are begun, as many at a time as there are cores; one
        that was given up does not count.
      each_s: that one may take.
      until: the deadline, by `time.monotonic`.
    """
    waiting = collections.deque(jobs)
    running: list[Job] = []
    cores = len(os.sched_getaffinity(0))
    told = threading.Event()
    while waiting or running:
        told.clear()
        for job in running:
            job.give_up_after(each_s)
        running = [job for job in running if not job.is_decided]
        left = until - time.monotonic()
        if left <= 0:
            return
        while waiting and len(running) < cores:
            running.append(waiting.popleft())
            running[-1].start(told)
        if running:
            told.wait(min(left, 0.1))


def attempt(function: Callable[[], Any]) -> tuple[Any, str]:
    """Calls a function that may fail in any way.

    Returns:
      Its result, or None and why there is none.
    """
    try:
        return function(), ""
    except Exception as error:  # noqa: BLE001 - a compiler may say anything of a kernel
        return None, f"{type(error).__name__}: {error}".splitlines()[0][:200]
