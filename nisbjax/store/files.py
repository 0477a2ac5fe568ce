"""A file that is there whole or not at all: written beside, synced, renamed into place.

Every file that is not appended to or written in chunks goes through `replacing`. The
temporary name carries host and process, so that two writers never share one, and what a
killed process left is removed by the next that writes the same file. PyTC and BANIS write
in place, so that a kill leaves half a file under the final name.
"""

import contextlib
import errno
import itertools
import json
import os
import pathlib
import socket
import stat
from collections.abc import Iterator
from typing import Any

from nisbjax.errors import InputError
from nisbjax.store import processes

_ENDING = ".partial"
# What SQLite keeps beside a database while it is written.
_ENDINGS = (_ENDING, *(f"{_ENDING}-{kind}" for kind in ("journal", "wal", "shm")))
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DEEPEST = 32  # levels of containers in JSON
_LONGEST = 1024  # bits of a whole number; Python refuses to write very long ones
_numbers = itertools.count()  # two threads may write one file


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike, *, scratch: bool = False
) -> Iterator[pathlib.Path]:
    """A temporary file to write inside a `with`; at its end it takes the place of `path`.

    When the body raises, the temporary file is removed and `path` is as it was. A link
    stays: the file that it points at is replaced. Folders above `path` are made.

    Args:
      path: of the file to replace, or of a new one.
      scratch: it lies in a folder that is removed as a whole and is looked at before it is
        believed: neither synced nor swept, which costs a look at the folder each time.

    Yields:
      An empty file beside it, of the same folder and so of the same file system.

    Raises:
      InputError: `path` is a folder or a device, which no output may replace.
      OSError: the file system's, with the path of the file in it.
    """
    target = _regular(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not scratch:
        sweep(target)
    temporary = target.with_name(f"{_own_prefix(target)}{next(_numbers)}{_ENDING}")
    temporary.unlink(missing_ok=True)  # of a process that had our id before
    # Exclusively: a link that somebody put there is not followed.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        with naming(path):
            yield temporary
        if not scratch:
            sync(temporary)
        os.replace(temporary, target)
        if not scratch:
            sync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Names a file in errors of a disk without room, which a write has no name for.

    Args:
      path: of the file that is written inside a `with`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


def require_file(path: str | os.PathLike) -> None:
    """Refuses a path that `replacing` would refuse, before the work that is to go there.

    Raises:
      InputError: `path` is a folder or a device, or links to one.
    """
    _regular(path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces a file by text, in UTF-8; durable when this returns."""
    with replacing(path) as temporary:
        # A name of a file need not be UTF-8, and may well be part of a report.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Replaces a file by a value as JSON; see `plain` for what JSON cannot hold."""
    write_text(path, json.dumps(plain(value), indent=1) + "\n")


def plain(value: Any, levels: int = _DEEPEST) -> Any:
    """A value as JSON has it: containers as lists and objects, numbers of numpy as numbers.

    What JSON has no word for (bytes, complex numbers, references of HDF5, NaN) becomes its
    text, since a report must not be lost for an attribute that some other program wrote.

    Args:
      value: anything.
      levels: of containers; what lies deeper is left out, and three dots say so.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _LONGEST else hex(value)
    if isinstance(value, float):
        return float(value) if value - value == 0 else str(float(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, dict | list | tuple | set | frozenset):
        if not levels:
            return "..."
        if isinstance(value, dict):
            return {str(k): plain(item, levels - 1) for k, item in value.items()}
        return [plain(item, levels - 1) for item in value]
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy's, not imported
        listed = value.tolist()
        # There are numbers of numpy that Python has no type for.
        return str(value) if hasattr(listed, "dtype") else plain(listed, levels)
    return str(value)


def require_regular(path: str | os.PathLike) -> pathlib.Path:
    """A path, if a file lies there; for readers that take a path and open it themselves.

    A pipe would be waited for without end, and a device may have none.

    Raises:
      InputError: nothing is there, it is of another kind, or may not be looked at.
    """
    path = pathlib.Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(_unreadable(path, error)) from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {_kind(mode)}; wanted a file")
    return path


def read_bytes(path: str | os.PathLike, most_bytes: int) -> bytes:
    """The content of a small file.

    Args:
      path: of the file; a pipe or a device is refused, not waited for.
      most_bytes: that it may have.

    Raises:
      InputError: it is not there, no file, too large or not readable.
    """
    path = require_regular(path)
    try:
        # Not to wait, should a pipe have taken its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as opened:
            content = opened.read(most_bytes + 1)
    except OSError as error:
        raise InputError(_unreadable(path, error)) from None
    if len(content) > most_bytes:
        raise InputError(f"{path} has more than {most_bytes} bytes")
    return content


def sync(path: str | os.PathLike) -> None:
    """Returns when a file's content, or a folder's list of names, is durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(path: str | os.PathLike) -> list[pathlib.Path]:
    """Removes the temporary files of `path` whose processes on this host are gone.

    Returns:
      What was removed.
    """
    path = pathlib.Path(path)
    removed = []
    start = f"{path.name}.{socket.gethostname()}."
    with contextlib.suppress(FileNotFoundError):
        for found in sorted(path.parent.iterdir()):
            if not (found.name.startswith(start) and found.name.endswith(_ENDINGS)):
                continue
            process = found.name[len(start) :].partition("-")[0]
            if process.isdigit() and not processes.alive(int(process)):
                found.unlink(missing_ok=True)
                removed.append(found)
    return removed


def _own_prefix(target: pathlib.Path) -> str:
    return f"{target.name}.{socket.gethostname()}.{os.getpid()}-"


def _regular(path: str | os.PathLike) -> pathlib.Path:
    """Where a file is really written: behind links, if nothing else would be lost there."""
    path = pathlib.Path(path)
    target = pathlib.Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {_kind(mode)}; name a file to write to")
    return target


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"


def _unreadable(path: pathlib.Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {path}"
    word = getattr(error, "strerror", None) or str(error)
    return f"{path} cannot be read ({word})"
