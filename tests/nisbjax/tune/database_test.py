"""SQLite files: recovered after a kill inside a commit, and refused without being changed."""

import contextlib
import shutil
import socket
import sqlite3
import subprocess

import optuna
import pytest

from nisbjax.errors import InputError
from nisbjax.tune import storage

MADE = {"prediction": "a"}


def open_study(path) -> optuna.Study:
    return storage.open_study(str(path), "tuning", MADE)


@pytest.fixture
def path(tmp_path):
    """A study with two trials that wait."""
    path = tmp_path / "tuning.db"
    opened = open_study(path)
    for threshold in (0.4, 0.5):
        opened.enqueue_trial({"threshold": threshold})
    return path


def change(path, *statements) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_a_kill_inside_a_commit_is_rolled_back(path, tmp_path):
    """What a kill leaves: a journal that is synced, and a database half overwritten."""
    killed = tmp_path / "killed" / "tuning.db"
    killed.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(
            "PRAGMA cache_size = 1"
        )  # pages go to the file before the commit
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trials")
        writer.execute("DELETE FROM trial_system_attributes")
        writer.execute("CREATE TABLE filler (text)")
        for _ in range(50):
            writer.execute("INSERT INTO filler VALUES (zeroblob(4000))")
        for name in ("tuning.db", "tuning.db-journal"):
            shutil.copy(path.with_name(name), killed.with_name(name))
        writer.execute("ROLLBACK")
    assert killed.read_bytes() != path.read_bytes()
    opened = open_study(killed)
    fixed = [trial.system_attrs["fixed_params"] for trial in opened.trials]
    assert fixed == [{"threshold": 0.4}, {"threshold": 0.5}]
    assert not killed.with_name("tuning.db-journal").exists()


def test_a_journal_whose_database_is_gone_does_not_spoil_a_new_one(path):
    journal = path.with_name("tuning.db-journal")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trials")
        writer.execute("CREATE TABLE filler (text)")
        for _ in range(50):
            writer.execute("INSERT INTO filler VALUES (zeroblob(4000))")
        content = journal.read_bytes()
        writer.execute("ROLLBACK")
    path.unlink()
    journal.write_bytes(content)
    assert open_study(path).trials == []
    assert not journal.exists()
    assert path.with_name("tuning.db-journal.old").read_bytes() == content


def test_what_a_killed_creation_left_is_swept(tmp_path):
    with subprocess.Popen(["true"]) as dead:
        pass
    left = f"tuning.db.{socket.gethostname()}.{dead.pid}-0.partial"
    for name in (left, f"{left}-journal"):
        (tmp_path / name).write_bytes(b"half")
    open_study(tmp_path / "tuning.db")
    assert [found.name for found in tmp_path.iterdir()] == ["tuning.db"]


def test_a_new_study_says_from_the_first_what_it_scores(tmp_path, monkeypatch):
    """Killed before it does, it is not there."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "set_user_attr", killed)
    with pytest.raises(KeyboardInterrupt):
        open_study(tmp_path / "tuning.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a?b.db", "100%.db", "a#b c.db", "é.db"])
def test_any_name(tmp_path, name):
    open_study(tmp_path / name).enqueue_trial({"threshold": 0.4})
    assert len(open_study(tmp_path / name).trials) == 1
    assert [found.name for found in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            (
                "UPDATE alembic_version SET version_num = 'v2.6.0.a'",
                "UPDATE version_info SET library_version = '2.10.0'",
            ),
            r"tables \(v2.6.0.a\) are older than .*; run `optuna storage upgrade",
        ),
        (
            (
                "UPDATE alembic_version SET version_num = 'v9.0.0.a'",
                "UPDATE version_info SET library_version = '9.1.0'",
            ),
            "are newer than .*; upgrade Optuna to 9.1.0 or later",
        ),
        (("DELETE FROM alembic_version",), "alembic_version has 0 rows, not 1"),
        (("DROP TABLE version_info",), "a SQLite database without Optuna's tables"),
        (("DROP TABLE trial_params",), "no such table: trial_params"),
    ],
)
def test_other_tables_are_refused_and_left_as_they_are(path, changes, message):
    opened = open_study(path)
    opened.ask({"threshold": optuna.distributions.FloatDistribution(0, 1)})
    change(path, *changes)
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        open_study(path)
    assert path.read_bytes() == before
