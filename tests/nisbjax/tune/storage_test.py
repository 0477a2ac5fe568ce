"""Databases of studies: whole, foreign, damaged, busy; journals; shared and alone."""

import contextlib
import errno
import sqlite3
import threading

import optuna
import pytest

from nisbjax.errors import InputError
from nisbjax.tune import storage

MADE = {"prediction": "a", "mask": "none"}


@pytest.fixture(params=["tuning.db", "tuning.journal"])
def path(request, tmp_path):
    return str(tmp_path / request.param)


def test_opens_again_with_its_trials(path):
    storage.open_study(path, "tuning", MADE).enqueue_trial({"threshold": 0.4})
    assert len(storage.open_study(path, "tuning", MADE).trials) == 1


def test_sqlite_url_is_the_file(tmp_path):
    storage.open_study(f"sqlite:///{tmp_path}/a.db", "tuning", MADE)
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/a.db") == ["tuning"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_of_other_inputs(path):
    storage.open_study(path, "tuning", MADE)
    with pytest.raises(
        InputError, match=r"scored other prediction \(prediction: 'a', now"
    ):
        storage.open_study(path, "tuning", {"prediction": "b", "mask": "none"})


def test_of_another_name(path):
    storage.open_study(path, "theirs", MADE)
    with pytest.raises(
        InputError, match="holds the studies theirs, not tuning; name one"
    ):
        storage.open_study(path, "tuning", MADE)


def test_damaged_database(tmp_path):
    path = tmp_path / "tuning.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(InputError, match=r"cannot be read \(file is not a database\)"):
        storage.open_study(str(path), "tuning", MADE)


def test_database_with_damaged_pages(tmp_path):
    path = tmp_path / "tuning.db"
    storage.open_study(str(path), "tuning", MADE)
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))
    with pytest.raises(
        InputError, match="cannot be read .* move it away and tune again"
    ):
        storage.open_study(str(path), "tuning", MADE)


def test_damaged_journal(tmp_path):
    path = tmp_path / "tuning.journal"
    storage.open_study(str(path), "tuning", MADE)
    path.write_bytes(b"{not json\n" + path.read_bytes())
    with pytest.raises(InputError, match="cannot be read .* move it away"):
        storage.open_study(str(path), "tuning", MADE)


def test_a_database_of_another_program(tmp_path):
    path = tmp_path / "tuning.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (id INTEGER)")
        database.commit()
    with pytest.raises(InputError, match="a SQLite database without Optuna's tables"):
        storage.open_study(str(path), "tuning", MADE)


def test_a_database_locked_by_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.1)
    path = tmp_path / "tuning.db"
    storage.open_study(str(path), "tuning", MADE)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            InputError, match="has been locked by another process for 0.1"
        ):
            storage.open_study(str(path), "tuning", MADE)


def test_alone_or_shared(path, monkeypatch):
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0)
    with storage.reserved(path, alone=False) as first:
        assert first.alone
        with (
            pytest.raises(InputError, match="is being run by process"),
            storage.reserved(path, alone=False),
        ):
            pass
        first.share()
        monkeypatch.setattr(storage, "BUSY_SECONDS", 1)
        with storage.reserved(path, alone=False) as second:
            assert not second.alone
        with (
            pytest.raises(InputError, match="is being run by process"),
            storage.reserved(path, alone=True),
        ):
            pass
    with storage.reserved(path, alone=True) as again:
        assert again.alone


def test_a_file_system_without_locks(path, monkeypatch):
    def refuse(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(storage.fcntl, "flock", refuse)
    with (
        pytest.raises(InputError, match=r"has no locks \(No locks available\); name a"),
        storage.reserved(path, alone=True),
    ):
        pass


def test_a_server_has_no_lock_file(tmp_path):
    with storage.reserved("postgresql://host/name", alone=True) as reservation:
        assert not reservation.alone


def test_in_turn(tmp_path):
    order = []

    def second():
        with storage.in_turn(tmp_path / "new" / "a.lock"):
            order.append("second")

    with storage.in_turn(tmp_path / "new" / "a.lock"):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
