"""When a run stops or saves out of turn: after a signal, or when time is up.

Processes of one run get signals at different moments and have clocks of their own, but must
save and stop after the same step, since every step is a program that all of them run. Where
Lightning reduces a flag and waits for it after each step, here the question travels with
the steps and its answer is read a few of them later.
"""

from typing import Any

import jax

from nisbjax.parallel import hosts
from nisbjax.parallel.signals import Noted


class Stopping:
    """What all processes agree on after each step: whether to stop, and to save.

    What a process knows of signals and time is all that they could disagree about. An
    answer is read when its step has long been done, so that nobody waits for it.

    Args:
      lag: steps between a question and its answer, where there are several processes.
    """

    def __init__(self, lag: int):
        self._noted = Noted()
        self._lag = lag if hosts.several() else 0
        self._asked: dict[int, Any] = {}

    def __enter__(self):
        self._noted.__enter__()
        return self

    def __exit__(self, *raised: object):
        self._noted.__exit__(*raised)

    @property
    def status(self) -> int:
        """What this process ends with once all stop: 130 after Ctrl-C, else 143."""
        return self._noted.status

    def agreed(self, done: int, overdue: bool, saved: int) -> tuple[bool, bool]:
        """Asks after step `done`; the answers to an earlier question.

        Args:
          done: steps.
          overdue: whether a checkpoint is, to this process.
          saved: step of the newest one.

        Returns:
          Whether some process was told to stop, and whether a checkpoint was overdue to
          one and none was saved since. A signal that comes after this is answered after
          the next step.
        """
        self._asked[done] = hosts.any_process([self._noted.received, overdue])
        asked = done - self._lag
        if asked not in self._asked:
            return False, False
        stops, overdue = map(bool, jax.device_get(self._asked.pop(asked)))
        return stops, overdue and asked > saved
