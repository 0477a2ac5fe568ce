"""Time and memory of a run, for its curves: what a step takes, waits for and holds.

Lightning, on which BANIS and PyTC train, logs neither the wait for data nor memory.
"""

import time

import jax
import psutil


class Clock:
    """Seconds for a step and, of those, waiting for data, since the last report.

    Attributes:
      waiting: a stopwatch to hold (`with`) while waiting for data.
      aside: another for what is no part of a step, such as validation.
      text: the last report in words.
    """

    def __init__(self):
        self.waiting = Stopwatch()
        self.aside = Stopwatch()
        self.text = ""
        self._since = time.monotonic()

    def scalars(self, steps: int) -> dict[str, float]:
        """Means over the steps since the last report."""
        now = time.monotonic()
        per_step = (now - self._since - self.aside.take()) / steps
        waited = self.waiting.take() / steps
        self._since = now
        self.text = f"{per_step:.2f} s a step ({waited:.2f} waiting)"
        return {"time/step_s": per_step, "time/data_wait_s": waited}


class Stopwatch:
    """Adds up the seconds spent inside its `with`."""

    def __init__(self):
        self._total = 0.0

    def __enter__(self):
        self._start = time.monotonic()

    def __exit__(self, *_):
        self._total += time.monotonic() - self._start

    def take(self) -> float:
        """The seconds so far; begins again at 0."""
        total, self._total = self._total, 0.0
        return total


def memory() -> dict[str, float]:
    """Memory of this process, and the most that its first device held, in GB."""
    found = {"memory/host_gb": psutil.Process().memory_info().rss / 1e9}
    statistics = jax.local_devices()[0].memory_stats() or {}  # None on a CPU
    if "peak_bytes_in_use" in statistics:
        found["memory/device_peak_gb"] = statistics["peak_bytes_in_use"] / 1e9
    return found
