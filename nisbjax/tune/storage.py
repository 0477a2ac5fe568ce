"""Where a study is kept, and who may work on it: SQLite on one host, a journal on several.

Optuna's storages behind PyTC's promise that a rerun appends (`load_if_exists`). SQLite's
locks do not hold over NFS, so studies shared by hosts are journals. Beside the file lies a
lock that the kernel releases when its process dies, however it dies: whoever holds it
alone knows that no one runs the trials that are still marked RUNNING.
"""

import contextlib
import fcntl
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import exc as sql_errors

from nisbjax.errors import InputError

JOURNALS = (".journal", ".log")
BUSY_SECONDS = 30
_MADE_FROM = "made_from"


class Reservation:
    """A held lock; `alone` until it is shared.

    Attributes:
        alone: no other process of this host works on the study.
    """

    def __init__(self, descriptor: int | None, alone: bool):
        self._descriptor = descriptor
        self.alone = alone

    def share(self) -> None:
        """Lets other tuners of this host join."""
        if self._descriptor is not None and self.alone:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self.alone = False


@contextlib.contextmanager
def reserved(storage: str, *, alone: bool) -> Iterator[Reservation]:
    """Holds the study's lock while a tuner works on it.

    Args:
        storage: as for `open_study`.
        alone: refuse to join others (a grid is one process's work).

    Raises:
        InputError: another process works on it alone.
    """
    path = _file_of(storage)
    if path is None:  # a server, whose users this host cannot see
        yield Reservation(None, False)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # a journal is shared by hosts, and the kernel's locks are not, on every NFS
    host = f".{socket.gethostname()}" if _is_journal(path) else ""
    with open(path.with_name(f"{path.name}{host}.lock"), "a+") as lock:
        exclusive = _try_lock(lock.fileno(), fcntl.LOCK_EX)
        if not exclusive and (alone or not _wait_for_share(lock.fileno())):
            lock.seek(0)
            raise InputError(
                f"the study in {path} is being run by {lock.read().strip()}; wait until "
                "that ends, or name another study with --config.tune.study=NAME"
            )
        if exclusive:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
        yield Reservation(lock.fileno(), exclusive)


@contextlib.contextmanager
def in_turn(path: str | os.PathLike[str]) -> Iterator[None]:
    """Waits until no other process of this host is inside for the same lock file.

    Raises:
        InputError: the file system has no locks.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as lock:
        while not _try_lock(lock.fileno(), fcntl.LOCK_EX):
            time.sleep(0.05)
        yield


def open_study(
    storage: str,
    name: str,
    made_from: Mapping[str, Any],
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """Opens a study to maximise NERL, or makes it; call it while it is reserved.

    Args:
        storage: a path of a SQLite database, of a journal (`.journal`, `.log`; for
            several hosts on one file system), or a URL of Optuna.
        name: of the study.
        made_from: what its scores depend on (fingerprints of prediction, mask and
            skeletons, ...); kept in the study when it is made, compared afterwards.
        sampler: proposes parameters; a grid needs none.

    Raises:
        InputError: the file is damaged, locked, or not an Optuna database; it holds other
            studies than this one; or the study scored something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = _file_of(storage)
    with _clear_damage(storage):
        if path is None:
            backend = RDBStorage(storage)
        elif _is_journal(path):
            backend = JournalStorage(JournalFileBackend(str(path)))
        else:
            if path.exists() and path.stat().st_size:
                _require_optuna(path)
            else:
                _make_database(path, name)
            backend = _sqlite(path)
        names = optuna.get_all_study_names(backend)
        if names and name not in names:
            raise InputError(
                f"{storage} holds the studies {', '.join(sorted(names))}, not {name}; name "
                "one of them with --config.tune.study, or another file with tune.storage"
            )
        study = optuna.create_study(
            storage=backend,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            sampler=sampler,
        )
        _compare(study, storage, made_from)
    return study


@contextlib.contextmanager
def clear_errors(storage: str) -> Iterator[None]:
    """Turns the errors of a broken or busy database into one clear line."""
    try:
        yield
    except (
        sql_errors.SQLAlchemyError,
        sqlite3.Error,
        optuna.exceptions.StorageInternalError,
    ) as error:
        text = f"{error} {error.__cause__ or ''}"
        if "locked" in text:
            raise InputError(
                f"the study in {storage} has been locked by another process for "
                f"{BUSY_SECONDS} s; end that process (a database browser?) and run again"
            ) from None
        raise _damaged(storage, error) from None


@contextlib.contextmanager
def _clear_damage(storage: str) -> Iterator[None]:
    """Also what Optuna raises while it reads a damaged journal or a half-made table."""
    try:
        with clear_errors(storage):
            yield
    except InputError:
        raise
    except (ValueError, KeyError, AssertionError) as error:
        raise _damaged(storage, error) from None


def _damaged(storage: str, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InputError(
        f"the study in {storage} cannot be read ({reason}); it is damaged or no database "
        "or journal of Optuna: move it away and tune again"
    )


def _file_of(storage: str) -> Path | None:
    """The file behind a storage: a path or `sqlite:///PATH`; None for a server's URL."""
    if storage.startswith("sqlite:///"):
        return Path(storage.removeprefix("sqlite:///"))
    return None if "://" in storage else Path(storage)


def _is_journal(path: Path) -> bool:
    return path.suffix in JOURNALS


def _sqlite(path: Path) -> RDBStorage:
    return RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}}
    )


def _make_database(path: Path, name: str) -> None:
    """Makes the tables and the study under another name, so that no kill leaves half."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    temporary.unlink(missing_ok=True)
    backend = _sqlite(temporary)
    optuna.create_study(storage=backend, study_name=name, direction="maximize")
    backend.remove_session()
    backend.engine.dispose()
    os.replace(temporary, path)


def _require_optuna(path: Path) -> None:
    """Refuses a file in which Optuna would silently make its tables."""
    with contextlib.closing(
        sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    ) as database:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in rows}
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
    if not {"studies", "trials", "alembic_version"} <= tables:
        raise InputError(
            f"{path} is a SQLite database without Optuna's tables; name another file with "
            "--config.tune.storage=FILE"
        )


def _compare(study: optuna.Study, storage: str, made_from: Mapping[str, Any]) -> None:
    found = study.user_attrs.get(_MADE_FROM)
    if found is None:
        study.set_user_attr(_MADE_FROM, dict(made_from))
        return
    differing = sorted(
        key
        for key in found.keys() | made_from.keys()
        if found.get(key) != made_from.get(key)
    )
    if differing:
        key = differing[0]
        raise InputError(
            f"the study {study.study_name} in {storage} scored other "
            f"{', '.join(differing)} ({key}: {found.get(key)!r}, now "
            f"{made_from.get(key)!r}); name another with --config.tune.study=NAME"
        )


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"the study's file system has no locks ({error.strerror}); name a file on "
            "another one with --config.tune.storage=FILE"
        ) from None
    return True


def _wait_for_share(descriptor: int) -> bool:
    for _ in range(BUSY_SECONDS * 10):
        if _try_lock(descriptor, fcntl.LOCK_SH):
            return True
        time.sleep(0.1)
    return False
