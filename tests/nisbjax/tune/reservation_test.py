"""A study's lock: alone, shared, taken over, and in turn."""

import errno
import os
import socket
import subprocess
import threading

import pytest

from nisbjax.errors import InputError
from nisbjax.tune import reservation

MADE = {"prediction": "a", "mask": "none"}


@pytest.fixture(params=["tuning.db", "tuning.journal"])
def path(request, tmp_path):
    return str(tmp_path / request.param)


def test_alone_or_shared(path, monkeypatch):
    monkeypatch.setattr(reservation, "BUSY_SECONDS", 0)
    with reservation.reserved(path, alone=False) as first:
        assert first.alone
        with (
            pytest.raises(InputError, match="is being run by process"),
            reservation.reserved(path, alone=False),
        ):
            pass
        first.share()
        monkeypatch.setattr(reservation, "BUSY_SECONDS", 1)
        with reservation.reserved(path, alone=False) as second:
            assert not second.alone
        with (
            pytest.raises(InputError, match="is being run by process"),
            reservation.reserved(path, alone=True),
        ):
            pass
    with reservation.reserved(path, alone=True) as again:
        assert again.alone


def test_no_lock_stays(path, tmp_path):
    with reservation.reserved(path, alone=False) as first, first.turn():
        first.share()
        with reservation.reserved(path, alone=False), pytest.raises(KeyError):
            raise KeyError
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_who_runs_it_is_who_is_alive(path, tmp_path):
    with subprocess.Popen(["true"]) as dead:
        pass
    with reservation.reserved(path, alone=False) as first:
        first.share()
        (lock,) = tmp_path.iterdir()
        here = socket.gethostname()
        others = f"process {dead.pid} on {here}\nprocess 7 on elsewhere\n"
        lock.write_text(others + lock.read_text())
        with (
            pytest.raises(
                InputError,
                match=f"is being run by process 7 on elsewhere, process {os.getpid()} on",
            ),
            reservation.reserved(path, alone=True),
        ):
            pass


def test_a_lock_of_any_content_is_taken_over(path, tmp_path):
    with reservation.reserved(path, alone=True):
        (lock,) = tmp_path.iterdir()
    lock.write_bytes(b"\xff\x00" * 100)
    with reservation.reserved(path, alone=True) as again:
        assert again.alone


def test_a_file_system_without_locks(path, monkeypatch):
    def refuse(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(reservation.fcntl, "flock", refuse)
    with (
        pytest.raises(InputError, match=r"has no locks \(No locks available\); name a"),
        reservation.reserved(path, alone=True),
    ):
        pass


def test_a_server_has_no_lock_file(tmp_path):
    with reservation.reserved("postgresql://host/name", alone=True) as found:
        assert not found.alone


def test_in_turn(tmp_path):
    order = []

    def second():
        with reservation.in_turn(tmp_path / "new" / "a.lock"):
            order.append("second")

    with reservation.in_turn(tmp_path / "new" / "a.lock"):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
