"""What processes agree on, with other processes in the place of `hosts`."""

import os
import signal

import numpy as np
import pytest

from nisbjax.parallel import hosts
from nisbjax.train.stopping import Stopping


@pytest.fixture
def others(monkeypatch):
    """What another process says after each step: whether it was told to stop, and is overdue."""
    said = {}

    def any_process(flags):
        any_process.step += 1
        return np.array(flags) | np.array(said.get(any_process.step, [False, False]))

    any_process.step = 0
    monkeypatch.setattr(hosts, "several", lambda: True)
    monkeypatch.setattr(hosts, "any_process", any_process)
    return said


def asked(steps, *, overdue=(), saved=0):
    with Stopping(2) as stopping:
        return [
            stopping.agreed(done, done in overdue, saved)
            for done in range(1, steps + 1)
        ]


def test_one_process_has_its_answer_at_once():
    assert asked(3, overdue=[2]) == [(False, False), (False, True), (False, False)]
    with Stopping(2) as stopping:
        assert stopping.agreed(1, False, 0) == (False, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.agreed(2, False, 0) == (True, False)


def test_several_stop_after_the_same_step_two_later(others):
    # The other one is told to stop in step 1, which both read after step 3.
    others[1] = [True, False]
    assert [stops for stops, _ in asked(4)] == [False, False, True, False]


def test_what_was_overdue_before_the_newest_checkpoint_is_not_saved_again(others):
    others[1] = others[2] = [False, True]
    # Answers to steps 1 and 2 are read after steps 3 and 4; step 1 was saved since.
    assert [due for _, due in asked(4, saved=1)] == [False, False, False, True]
