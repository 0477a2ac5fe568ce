"""Which processes run, and which of two with one id is meant."""

import os
import subprocess

import pytest

from nisbjax.store import processes


def test_a_process_is_told_by_its_id_and_its_start():
    own = os.getpid()
    began = processes.started(own)
    assert began > 0
    assert processes.runs(own, began)
    assert processes.runs(own, 0)  # not known when
    assert not processes.runs(own, began - 1)  # an earlier one of that id


def test_a_process_that_proc_hides_runs(monkeypatch):
    """As under hidepid: its id is taken, and nothing says when it began."""
    monkeypatch.setattr(processes, "_state", lambda process: [])
    assert processes.runs(os.getpid(), 12345)
    assert not processes.runs(1 << 40, 12345)


def test_a_process_that_has_ended():
    with subprocess.Popen(["true"]) as child:
        pass
    assert not processes.alive(child.pid)
    assert processes.started(child.pid) == 0


def test_a_process_that_has_ended_and_is_not_yet_waited_for():
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        os.kill(child.pid, 0)  # its number is still taken
        assert not processes.alive(child.pid)
        assert not processes.runs(child.pid, processes.started(child.pid))


@pytest.mark.parametrize(("number", "there"), [(1, True), (1 << 40, False)])
def test_processes_of_others_and_numbers_that_are_none(number, there):
    assert processes.alive(number) == there
