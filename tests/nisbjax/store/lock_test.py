"""A folder's lock between real processes."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from nisbjax.errors import InputError
from nisbjax.store import lock

HOLD = """
import pathlib, sys, time
from nisbjax.store import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "train.lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_gone(path, holder):
    os.utime(path, (0, 0))  # the age is the lock's own
    held = json.loads(path.read_text())
    held["since"] -= 600
    path.write_text(json.dumps(held))
    with (
        pytest.raises(
            InputError,
            match=f"run is being written by process {holder.pid} on "
            rf"{socket.gethostname()} \(since 10 minutes\); wait for it, or remove .*lock",
        ),
        lock.held(path),
    ):
        pass
    # Killed, it leaves its file; the kernel knows better.
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads(path.read_text())["pid"] == holder.pid
    with lock.held(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_lock_of_another_host_is_left_alone(path, monkeypatch):
    path.parent.mkdir()
    owner = {"host": "elsewhere", "pid": 12, "since": time.time() - 7200, "job": "77"}
    path.write_text(json.dumps(owner))
    message = r"process 12 on elsewhere \(since 120 minutes\)"
    for job in ("", "78"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        with pytest.raises(InputError, match=message), lock.held(path):
            pass
        assert json.loads(path.read_text()) == owner
    # The same job, requeued on this host: its earlier start is over.
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with lock.held(path):
        assert json.loads(path.read_text())["host"] == socket.gethostname()


@pytest.mark.parametrize("content", ["", "{", '{"host": "a", "pi', "\0" * 90])
def test_a_torn_lock_is_taken_over(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with lock.held(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def contend(path, start, counter, together, refused):
    """Takes the lock many times; notes whether anybody else had it meanwhile."""
    start.wait()
    for _ in range(60):
        try:
            with lock.held(path):
                with counter.get_lock():
                    counter.value += 1
                    together.value = max(together.value, counter.value)
                time.sleep(0.0005)
                with counter.get_lock():
                    counter.value -= 1
        except InputError:
            refused.value = 1


def test_two_processes_never_hold_it_together(path):
    """Each removes the file at the end, while the other opens it."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    counter, together, refused = (context.Value("i", 0) for _ in range(3))
    arguments = (path, start, counter, together, refused)
    children = [context.Process(target=contend, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert together.value == 1 and refused.value == 1


def test_a_file_system_without_locks_is_named(path, monkeypatch):
    def no_locks(descriptor, kind):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with (
        pytest.raises(
            InputError, match="run has no locks .Function not implemented.; write to"
        ),
        lock.held(path),
    ):
        pass


@pytest.mark.parametrize(
    "content",
    ['{"since": "x"}', "5", "null", '{"host": 1, "pid": "x"}', "\x00" * 9, "{"],
)
def test_a_lock_file_with_anything_in_it(tmp_path, content):
    """Held by the kernel's word alone: whatever stands in it, one line."""
    path = tmp_path / "lock"
    with lock.held(path):
        path.write_text(content)
        said = pytest.raises(InputError, match="is being written by a process that has")
        with said, lock.held(path):
            pass


def test_folders_that_were_made_for_the_lock_alone_go_with_it(tmp_path):
    path = tmp_path / "run" / "test" / "a.lock"
    with pytest.raises(ZeroDivisionError), lock.held(path):
        1 / 0  # noqa: B018 (refused before anything is written)
    assert not (tmp_path / "run").exists()
    with lock.held(path):
        (path.parent / "a").write_text("")
    assert os.listdir(path.parent) == ["a"]


@pytest.mark.parametrize(
    "kind",
    ["link", "nowhere", "folder", "pipe", "device", "[]", '{"host"' + " " * 4096],
)
def test_what_is_no_lock_is_left_alone(tmp_path, kind):
    """It would be emptied and removed; through a link, what that leads to."""
    (tmp_path / "precious").write_text("figures")
    path = tmp_path / "labels.zarr.lock"
    if kind[0] in "[{":
        path.write_text(kind)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        target = {"link": "precious", "nowhere": "none", "device": "/dev/null"}[kind]
        path.symlink_to(target)
    with (
        pytest.raises(InputError, match="labels.zarr.lock is no lock of ours, and the"),
        lock.writing(tmp_path / "labels.zarr"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "figures"
    assert path.is_symlink() or path.exists()
    assert kind[0] not in "[{" or path.read_text() == kind
    assert not (tmp_path / "none").exists()
