"""A study in a SQLite file: made whole, recovered after a kill, refused where it does not fit.

Optuna's `RDBStorage` makes tables in whatever file it is given and raises where they are of
another version. Here a file is looked at before, through a connection that may write: what
a kill inside a commit left (a hot journal) is rolled back by SQLite as it reads.
"""

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from absl import logging
from optuna.storages import RDBStorage

from nisbjax.errors import InputError
from nisbjax.store import files

MADE_FROM = "made_from"  # the study's attribute that says what its trials scored
_TABLES = {"studies", "trials", "alembic_version", "version_info"}
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite keeps beside a database


def open_database(
    path: Path, name: str, made_from: Mapping[str, Any], busy_seconds: float
) -> RDBStorage:
    """Opens a database of studies, or makes it with one study in it.

    Args:
      path: of the file.
      name: of the study, where the database is new.
      made_from: what its trials score, where the database is new.
      busy_seconds: to wait for another program's lock.

    Raises:
      InputError: other tables, or those of another version of Optuna.
      sqlite3.Error: the file is damaged, locked, or cannot be written.
    """
    files.sweep(path)
    if not path.exists() or not path.stat().st_size:
        _make(path, name, made_from, busy_seconds)
    return existing_database(path, busy_seconds)


def existing_database(path: Path, busy_seconds: float) -> RDBStorage:
    """Opens a database of studies that is there; writes nothing but what a kill left.

    Raises:
      InputError, sqlite3.Error: as `open_database`.
    """
    _require_tables(path, busy_seconds)
    backend = _backend(path, busy_seconds)
    _require_version(backend, path)
    return backend


def _make(
    path: Path, name: str, made_from: Mapping[str, Any], busy_seconds: float
) -> None:
    """Makes tables and study under another name, so that a study says what it scores."""
    for left in _beside(path):
        # SQLite would write it into the new database, and the old one is lost without it.
        aside = left.with_name(left.name + ".old")
        logging.warning("%s is left of a database that is gone: now %s", left, aside)
        os.replace(left, aside)
    with files.replacing(path) as temporary:
        try:
            backend = _backend(temporary, busy_seconds, skip_table_creation=False)
            study = optuna.create_study(
                storage=backend, study_name=name, direction="maximize"
            )
            study.set_user_attr(MADE_FROM, dict(made_from))
            backend.remove_session()
            backend.engine.dispose()
        finally:
            for left in _beside(temporary):
                left.unlink(missing_ok=True)


def _beside(path: Path) -> list[Path]:
    candidates = [path.with_name(path.name + ending) for ending in _BESIDE]
    return [candidate for candidate in candidates if candidate.exists()]


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """May write, for a hot journal is rolled back only then; makes no file."""
    address = f"file:{urllib.parse.quote(str(path.absolute()))}?mode=rw"
    return sqlite3.connect(
        address, uri=True, timeout=busy_seconds, check_same_thread=False
    )


def _backend(
    path: Path, busy_seconds: float, *, skip_table_creation: bool = True
) -> RDBStorage:
    # The file comes by `creator`: in a URL, a ? or % in its path means something else.
    return RDBStorage(
        "sqlite:///study.db",
        engine_kwargs={"creator": lambda: _connect(path, busy_seconds)},
        skip_compatibility_check=True,
        skip_table_creation=skip_table_creation,
    )


def _require_tables(path: Path, busy_seconds: float) -> None:
    """Refuses damage, and a database to which Optuna would add what it misses."""
    with contextlib.closing(_connect(path, busy_seconds)) as database:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in rows}
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        if not tables >= _TABLES:
            raise InputError(
                f"{path} is a SQLite database without Optuna's tables; name another file "
                "with --config.tune.storage=FILE"
            )
        for table in ("alembic_version", "version_info"):
            (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
            if count != 1:
                raise sqlite3.DatabaseError(f"{table} has {count} rows, not 1")


def _require_version(backend: RDBStorage, path: Path) -> None:
    found, wanted = backend.get_current_version(), backend.get_head_version()
    if found == wanted:
        return
    with backend.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT library_version FROM version_info")
        library = row.scalar()
    if found in backend.get_all_versions():
        remedy = (
            f"run `optuna storage upgrade --storage sqlite:///{path}` on a copy and name "
            "that"
        )
        age = "older"
    else:
        remedy, age = f"upgrade Optuna to {library} or later", "newer"
    raise InputError(
        f"the study in {path} was made by Optuna {library}, whose tables ({found}) are "
        f"{age} than those of the Optuna {optuna.__version__} installed here ({wanted}); "
        f"{remedy}, or name another file with --config.tune.storage=FILE"
    )
