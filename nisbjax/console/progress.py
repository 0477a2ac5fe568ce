"""How far a long piece of work is: a bar on a terminal, elsewhere a line a minute.

Lightning's bars fill the log file of a batch job with one long line, or say nothing; a line
here has the share that is done, the rate and the time that is left.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging
from tqdm import tqdm

from nisbjax.console import log_lines, quantities

EVERY_SECONDS = 60.0
_PART = 1 << 24  # elements of `parts`: seconds of work


class Progress:
    """Counts pieces of work, and says from time to time how many are done.

    It is entered and left with `with`; `update` may be called by one thread at a time.

    Args:
      what: is being done, `predict`; "" to say nothing.
      total: how many pieces there are.
      units: what the pieces are called, `windows`.
      done: pieces that an earlier start did.
      clock: seconds.
      terminal: whether a bar can be drawn; None to ask standard error.
    """

    def __init__(
        self,
        what: str,
        total: int,
        units: str,
        *,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
        terminal: bool | None = None,
    ):
        self._what, self._total, self._units = what, total, units
        self._first = self._done = done
        self._clock = clock
        drawn = log_lines.on_terminal() if terminal is None else terminal
        self._lines = bool(what) and not drawn
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=f" {units}",
            disable=not (what and drawn),
            dynamic_ncols=True,
            leave=False,
        )
        self._began = self._told = clock()

    def __enter__(self) -> "Progress":  # noqa: PYI034 (jaxtyping cannot read Self)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """So many pieces more are done."""
        self._done += count
        self._bar.update(count)
        if not self._lines or self._done >= self._total:
            return
        if self._clock() - self._told >= EVERY_SECONDS:
            self.told()
            logging.info("%s", self.text)

    def parts(self, array: np.ndarray) -> Iterator[np.ndarray]:
        """Consecutive parts of an array, each counted once whoever takes them has had it."""
        for first in range(0, len(array), _PART):
            part = array[first : first + _PART]
            yield part
            self.update(len(part))

    def note(self, text: str) -> None:
        """Shows a word behind the bar."""
        self._bar.set_postfix_str(text)

    def told(self) -> None:
        """Another line has said how far the work is: the next is due in a minute."""
        self._told = self._clock()

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None before anything was done."""
        done = self._done - self._first
        if not done:
            return None
        return (self._clock() - self._began) / done * (self._total - self._done)

    @property
    def text(self) -> str:
        """`predict: 120 of 490 windows (24%), 3.1 a second, 2 min left`."""
        share = 100 * self._done // max(1, self._total)
        done = self._done - self._first
        rate = quantities.rate(done, self._clock() - self._began)
        left = self.seconds_left
        end = "" if left is None else f", {quantities.duration(left)} left"
        return (
            f"{self._what}: {self._done} of {self._total} {self._units} ({share}%), "
            f"{rate}{end}"
        )
