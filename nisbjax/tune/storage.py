"""Where a study is kept, and who may work on it: SQLite on one host, a journal on several.

Optuna's storages behind PyTC's promise that a rerun appends (`load_if_exists`), but only to
a study that says it scored the same: PyTC's own studies have the same default name. SQLite's
locks do not hold over NFS, so studies shared by hosts are journals. Beside the file lies a
lock that the kernel releases when its process dies, however it dies: whoever holds it
alone knows that no one runs the trials that are still marked RUNNING.
"""

import contextlib
import fcntl
import os
import re
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import create_engine
from sqlalchemy import exc as sql_errors

from nisbjax.errors import InputError
from nisbjax.store import processes
from nisbjax.tune.database import MADE_FROM, existing_database, open_database
from nisbjax.tune.journal import existing_journal, open_journal
from nisbjax.tune.place import (
    ANOTHER_FILE,
    damaged,
    file_of,
    is_journal,
    require_place,
    shown,
    unusable,
)

BUSY_SECONDS = 30
_ANOTHER = "name another study with --config.tune.study=NAME"


class Reservation:
    """A held lock; `alone` until it is shared.

    Attributes:
        alone: no other process of this host works on the study.
        one_host: nor can one of another host: the study is no journal, no server's.
    """

    def __init__(
        self, lock: TextIO | None, alone: bool, turns: Path | None, *, one_host: bool
    ):
        self._lock = lock
        self._turns = turns
        self.alone = alone
        self.one_host = one_host

    def share(self) -> None:
        """Lets other tuners of this host join.

        Raises:
            InputError: another process has had it in the meantime.
        """
        if self._lock is not None and self.alone:
            # the kernel lets go of a lock before it gives one of another kind
            fcntl.flock(self._lock.fileno(), fcntl.LOCK_SH)
            if not _is_at(self._lock, Path(self._lock.name)):
                raise InputError("another process took the study over; run again")
        self.alone = False

    def turn(self) -> AbstractContextManager[None]:
        """A `with` inside which no other tuner of this host claims a trial."""
        if self._turns is None:
            return contextlib.nullcontext()
        return in_turn(self._turns)


@contextlib.contextmanager
def reserved(storage: str, *, alone: bool) -> Iterator[Reservation]:
    """Holds the study's lock while a tuner works on it.

    Args:
        storage: as for `open_study`.
        alone: refuse to join others (a grid is one process's work).

    Raises:
        InputError: another process works on it alone, or no study can be kept there.
    """
    require_place(storage)
    path = file_of(storage)
    if path is None:  # a server, whose users this host cannot see
        yield Reservation(None, False, None, one_host=False)
        return
    # a journal is shared by hosts, and the kernel's locks are not, on every NFS
    host = f".{socket.gethostname()}" if is_journal(path) else ""
    place = path.with_name(f"{path.name}{host}.lock")
    turns = path.with_name(f"{path.name}{host}.turn")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock, exclusive = _take(place, path, alone)
    except OSError as error:
        raise unusable(storage, error) from None
    with lock:
        try:
            yield Reservation(lock, exclusive, turns, one_host=not is_journal(path))
        finally:
            if _try_lock(lock.fileno(), fcntl.LOCK_EX):  # the last one
                turns.unlink(missing_ok=True)
                place.unlink(missing_ok=True)  # before the lock goes


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
            studies than this one; or the study is another program's or scored something
            else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    require_place(storage)
    path = file_of(storage)
    with _clear_damage(storage):
        if path is None:
            backend = _open_server(storage)
        elif is_journal(path):
            backend = open_journal(path, name, made_from)
        else:
            backend = open_database(path, name, made_from, float(BUSY_SECONDS))
        if not _holds(
            backend, name, storage
        ):  # of a server, or of `optuna`'s own making
            optuna.create_study(
                storage=backend,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
            )
        study = optuna.load_study(study_name=name, storage=backend, sampler=sampler)
        _require_ours(study, shown(storage), made_from)
    return study


def require_fitting(storage: str, name: str, facts: Mapping[str, Any]) -> None:
    """Refuses beforehand what `open_study` would; makes and changes nothing.

    Args:
        storage: as for `open_study`; of a server nothing is asked but that it answers.
        name: of the study, which need not be there.
        facts: those of its `made_from` that are known by now.

    Raises:
        InputError: as `open_study`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    require_place(storage)
    path = file_of(storage)
    with _clear_damage(storage):
        if path is None:
            engine = create_engine(storage)
            engine.connect().close()
            engine.dispose()
            return
        if not path.exists() or not path.stat().st_size:
            return
        if is_journal(path):
            backend = existing_journal(path)
        else:
            backend = existing_database(path, float(BUSY_SECONDS))
        if _holds(backend, name, storage):
            study = optuna.load_study(study_name=name, storage=backend)
            _require_ours(study, shown(storage), facts, beforehand=True)
        if isinstance(backend, RDBStorage):
            backend.remove_session()
            backend.engine.dispose()


def _holds(backend: BaseStorage, name: str, storage: str) -> bool:
    """Whether a study is there; False where there is none at all.

    Raises:
        InputError: others are.
    """
    names = optuna.get_all_study_names(backend)
    if names and name not in names:
        raise InputError(
            f"{shown(storage)} holds the studies {', '.join(sorted(names))}, not {name}; "
            "name one of them with --config.tune.study, or another file with tune.storage"
        )
    return bool(names)


def _open_server(storage: str) -> RDBStorage:
    try:
        return RDBStorage(storage)
    except (
        RuntimeError,
        ImportError,
    ) as error:  # its tables' version; no driver for it
        raise damaged(storage, error) from None


@contextlib.contextmanager
def clear_errors(storage: str) -> Iterator[None]:
    """Turns the errors of a broken, busy or full database into one clear line."""
    try:
        yield
    except (
        sql_errors.SQLAlchemyError,
        sqlite3.Error,
        optuna.exceptions.StorageInternalError,
    ) as error:
        text = f"{error} {error.__cause__ or ''}"
        for sign, problem in _PROBLEMS.items():
            if sign in text:
                problem = problem.format(seconds=BUSY_SECONDS)
                raise InputError(f"the study in {shown(storage)} {problem}") from None
        raise damaged(storage, error.__cause__ or error) from None


# What SQLite says, and what that means to its user.
_KEPT = "; what is complete in it stays"
_PROBLEMS = {
    "locked": "has been locked by another process for {seconds} s; end that process (a "
    "database browser?) and run again",
    "is full": f"cannot be written: the disk is full; free space and run again{_KEPT}",
    "readonly database": "cannot be written: it or its folder is read-only, or it was "
    f"moved away; mend that and run again, or {ANOTHER_FILE}",
    "unable to open database file": "cannot be opened: it, its folder or what SQLite "
    f"keeps beside it is missing or not accessible; mend that, or {ANOTHER_FILE}",
    "disk I/O error": "cannot be read or written: the file system reports an input/output "
    f"error (a quota?); mend that and run again{_KEPT}",
}


@contextlib.contextmanager
def _clear_damage(storage: str) -> Iterator[None]:
    """Also what Optuna raises while it reads a damaged journal or a half-made table."""
    try:
        with clear_errors(storage):
            yield
    except InputError:
        raise
    except OSError as error:
        raise unusable(storage, error) from None
    except (ValueError, LookupError, AssertionError, ImportError) as error:
        raise damaged(storage, error) from None


def _require_ours(
    study: optuna.Study,
    storage: str,
    made_from: Mapping[str, Any],
    *,
    beforehand: bool = False,
) -> None:
    """Refuses a study whose trials cannot be compared with those that are to come.

    One of which nothing is known is taken if it has no trial at all, so that nothing in it
    can win: `optuna create-study` makes such, and so does a kill while a server's is made.

    Args:
        study: as it was found.
        storage: for messages.
        made_from: what trials to come score.
        beforehand: only part of that is known yet; the study stays as it is.
    """
    if study.directions != [StudyDirection.MAXIMIZE]:
        words = ", ".join(direction.name.lower() for direction in study.directions)
        raise InputError(
            f"the study {study.study_name} in {storage} is another program's (its "
            f"direction is {words}, not maximize); move it away, or {_ANOTHER}"
        )
    trials = study.get_trials(deepcopy=False)
    found = study.user_attrs.get(MADE_FROM)
    if not isinstance(found, dict):
        if trials or study.user_attrs:
            raise InputError(
                f"the study {study.study_name} in {storage} is another program's (nothing "
                f"says what its {len(trials)} trials scored); move it away, or {_ANOTHER}"
            )
        if not beforehand:
            study.set_user_attr(MADE_FROM, dict(made_from))
        return
    differing = sorted(
        key
        for key in (made_from.keys() if beforehand else found.keys() | made_from.keys())
        if found.get(key) != made_from.get(key)
    )
    if differing:
        key = differing[0]
        raise InputError(
            f"the study {study.study_name} in {storage} scored other "
            f"{', '.join(differing)} ({key}: {found.get(key)!r}, now "
            f"{made_from.get(key)!r}); {_ANOTHER}"
        )
    # A program that knows the study by name alone appends to it.
    foreign = [
        trial.number
        for trial in trials
        if trial.state == TrialState.COMPLETE and "host" not in trial.user_attrs
    ]
    if foreign:
        raise InputError(
            f"the study {study.study_name} in {storage} holds {len(foreign)} trials that "
            f"another program added (the first is trial {foreign[0]}), scored on nobody "
            f"knows what; {_ANOTHER}"
        )


def _take(place: Path, path: Path, alone: bool) -> tuple[TextIO, bool]:
    """The lock file, locked, and whether nobody else has it."""
    while True:
        lock = open(place, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            exclusive = _try_lock(lock.fileno(), fcntl.LOCK_EX)
            if not exclusive and (alone or not _wait_for_share(lock.fileno())):
                raise InputError(
                    f"the study in {path} is being run by {_owners(lock)}; wait until that "
                    "ends, or name another study with --config.tune.study=NAME"
                )
            if _is_at(lock, place):
                if exclusive:
                    lock.truncate(0)
                lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                lock.flush()
                return lock, exclusive
        except BaseException:
            lock.close()
            raise
        lock.close()  # its last owner removed it as we opened it


def _is_at(lock: TextIO, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(place))
    except FileNotFoundError:
        return False


def _owners(lock: TextIO) -> str:
    """Who wrote into a lock file, less the processes of this host that are gone."""
    lock.seek(0)
    found = re.findall(r"^process (\d+) on (.+)$", lock.read(), re.MULTILINE)
    here = socket.gethostname()
    running = [
        f"process {process} on {host}"
        for process, host in found
        if host != here or processes.alive(int(process))
    ]
    return ", ".join(running) or "a process that has just started"


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
