"""Where a study may lie: which paths are refused, and how a place is named in messages.

A storage is a path, `sqlite:///PATH`, or the URL of a server that Optuna knows. Optuna makes
what it is given, in whatever is there, and prints the server's password.
"""

import contextlib
import os
import re
import stat
from pathlib import Path

from sqlalchemy import exc as sql_errors
from sqlalchemy.engine import make_url

from nisbjax.errors import InputError

JOURNALS = (".journal", ".log")
ANOTHER_FILE = "name another file with --config.tune.storage=FILE"


def file_of(storage: str) -> Path | None:
    """The file behind a storage: a path or `sqlite:///PATH`; None for a server's URL."""
    address = re.fullmatch(r"sqlite(\+pysqlite)?:///(.+)", storage, re.DOTALL)
    if address and address[2] != ":memory:":
        return Path(address[2])
    return None if "://" in storage else Path(storage)


def is_journal(path: Path) -> bool:
    return path.suffix in JOURNALS


def require_place(storage: str) -> None:
    """Refuses a storage in which no study can be kept; writes nothing.

    Raises:
      InputError: a folder, a device, a pipe, a path that cannot be or cannot be written,
        or SQLite in memory.
    """
    path = file_of(storage)
    if path is None:
        if storage.startswith("sqlite"):
            raise InputError(
                f"tune.storage is {storage}, which is no file and gone when the process "
                f"ends; {ANOTHER_FILE}"
            )
        return
    if "\0" in storage:
        raise InputError(
            f"tune.storage is {storage!r}, with a null byte; {ANOTHER_FILE}"
        )
    try:
        if path.exists():
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
                raise InputError(f"tune.storage is {storage}, {kind}; {ANOTHER_FILE}")
        elif path.is_symlink():
            raise InputError(
                f"tune.storage is {storage}, a link to what is not there; {ANOTHER_FILE}"
            )
        folder = next(above for above in path.absolute().parents if above.exists())
        if not folder.is_dir():
            raise NotADirectoryError(0, f"{folder} is no folder")
        for place in (folder, path):  # SQLite keeps its journal in the folder
            if place.exists() and not os.access(place, os.W_OK):
                raise PermissionError(0, f"{place} cannot be written")
    except OSError as error:
        raise unusable(storage, error) from None


def damaged(storage: str, error: BaseException) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if file_of(storage) is None:
        return InputError(
            f"the studies of the server {shown(storage)} cannot be used ({reason}); mend "
            f"that, or {ANOTHER_FILE}"
        )
    return InputError(
        f"the study in {storage} cannot be read ({reason}); it is damaged or no database "
        "or journal of Optuna: move it away and tune again"
    )


def unusable(storage: str, error: OSError) -> InputError:
    return InputError(
        f"no study can be kept in {shown(storage)} ({error.strerror or error}); mend "
        f"that, or {ANOTHER_FILE}"
    )


def shown(storage: str) -> str:
    """A storage without its password."""
    if file_of(storage) is not None:
        return storage
    with contextlib.suppress(sql_errors.SQLAlchemyError, ValueError):
        return make_url(storage).render_as_string(hide_password=True)
    return storage.partition("://")[0] + "://..."
