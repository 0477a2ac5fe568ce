"""Where a study is kept: in SQLite on one host, in a journal on several, on a server.

Optuna's storages behind PyTC's promise that a rerun appends (`load_if_exists`), but only to
a study that says it scored the same: PyTC's own studies have the same default name. SQLite's
locks do not hold over NFS, so studies shared by hosts are journals.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from absl import logging
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import create_engine
from sqlalchemy import exc as sql_errors

from nisbjax.errors import InputError
from nisbjax.store.fingerprint_versions import difference, is_earlier
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
from nisbjax.tune.reservation import Reservation, in_turn, reserved

__all__ = [  # a study's file and its lock in one name, for callers
    "Reservation",
    "clear_errors",
    "in_turn",
    "open_study",
    "require_fitting",
    "reserved",
]

BUSY_SECONDS = 30  # to wait for another program's lock
_ANOTHER = "name another study with --config.tune.study=NAME"
_REMOVE = f"add --redo=tune to make it anew, or {_ANOTHER}"


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


def remove_study(storage: str, name: str) -> None:
    """Removes the file of a study, because somebody asked for it to be made anew.

    Call it while it is reserved alone.

    Raises:
      InputError: a server's, which may hold others; or as `require_fitting`.
    """
    path = file_of(storage)
    if path is None:
        raise InputError(
            f"--redo=tune removes files, and {shown(storage)} is a server's; {_ANOTHER}"
        )
    require_fitting(storage, name, {})
    if not path.exists():
        return
    logging.info("replacing %s, as --redo asks", path)
    for ending in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


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
        if all(is_earlier(found.get(other)) for other in differing):
            raise InputError(
                f"the study {study.study_name} in {storage} names {', '.join(differing)} "
                f"and {difference(found[key], '')}; {_REMOVE}"
            )
        raise InputError(
            f"the study {study.study_name} in {storage} scored other "
            f"{', '.join(differing)} ({key}: {found.get(key)!r}, now "
            f"{made_from.get(key)!r}); {_REMOVE}"
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
