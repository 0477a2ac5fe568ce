"""A run's folder belongs to one process at a time: a file that says which, and since when.

The kernel holds the lock (`flock`) and lets go of it however its process dies, so a lock
left behind on this host is taken over at once, and two processes cannot both take it.
Lightning, on which BANIS and PyTC train, lets two runs write to one folder.
"""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import pathlib
import socket
import stat
import time
from collections.abc import Iterator
from typing import Any

from nisbjax.errors import InputError
from nisbjax.store import records
from nisbjax.store.schema import number, optional, text, whole

# Not through a link: whoever it leads to would be emptied. Nor to wait for a pipe.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
_ATTEMPTS = 100  # at a folder that others make and remove
_BEGINS = (
    b'{"host"'  # what `_write` writes; less of it after a kill, zeros after a crash
)
_LONGEST = 4096  # bytes


@contextlib.contextmanager
def held(path: pathlib.Path, what: str | os.PathLike = "") -> Iterator[None]:
    """Holds the lock in `path` inside a `with`; the file is removed at the end.

    So are folders that were made for it, if nothing else came to lie there.

    A file that another host left is only taken over where SLURM says that it was an earlier
    start of this very job: kernels of different hosts need not know of each other's locks.

    Args:
      path: of the lock file; its folder is made if missing.
      what: is written, for the message; the folder where "". See `writing`.

    Raises:
      InputError: another process has it: its host, its id and its age; a link or a folder
        is in its place; or the file system knows no locks.
    """
    what = str(what or path.parent)
    made: list[pathlib.Path] = []
    descriptor = None
    try:
        descriptor = _take(path, what, made)
        owner = _read(descriptor)
        if owner.get("host", socket.gethostname()) != socket.gethostname():
            job = os.environ.get("SLURM_JOB_ID")
            if not job or owner.get("job") != job:
                raise InputError(_refusal(path, owner, what))
        try:
            _write(descriptor, path)
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock goes
    finally:
        if descriptor is not None:
            os.close(descriptor)
        for folder in made:  # nobody wrote there
            with contextlib.suppress(OSError):
                folder.rmdir()


def writing(artifact: str | os.PathLike) -> contextlib.AbstractContextManager[None]:
    """Holds the lock of an artifact, `<artifact>.lock` beside it, while it is written.

    Take it after all checks that may refuse, and before anything is written.

    Raises:
      InputError: as `held`.
    """
    artifact = pathlib.Path(os.path.realpath(artifact))  # one lock, whatever its names
    return held(artifact.with_name(artifact.name + ".lock"), artifact)


def _take(path: pathlib.Path, what: str, made: list[pathlib.Path]) -> int:
    """The locked file; `made` receives the folders made for it, the lowest first."""
    for attempt in itertools.count():
        missing = [f for f in (path.parent, *path.parent.parents) if not f.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            made[:] = [*missing, *(f for f in made if f not in missing)]
            descriptor = os.open(path, _FLAGS, 0o666)
        except OSError as error:
            strange = error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO)
            if strange and os.path.lexists(path):
                raise _no_lock(path, what) from None
            if not isinstance(error, FileNotFoundError | FileExistsError):
                raise
            # Its last owner removed the folder as we came or looked.
            if attempt < _ATTEMPTS:
                continue
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _no_lock(path, what)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read(descriptor)
            os.close(descriptor)
            raise InputError(_refusal(path, owner, what)) from None
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                f"the file system of {path.parent} has no locks ({error.strerror}); "
                "write to another one"
            ) from None
        if _is_at(descriptor, path):
            if not _is_ours(descriptor):
                os.close(descriptor)
                raise _no_lock(path, what)
            return descriptor
        os.close(descriptor)  # its last owner removed it as we opened it
    raise AssertionError


def _no_lock(path: pathlib.Path, what: str) -> InputError:
    """The error for what is written to and removed with a lock, and is none."""
    return InputError(
        f"{path} is no lock of ours, and the lock of {what} is to be there; "
        "remove it, or write to another path"
    )


def _is_ours(descriptor: int) -> bool:
    """Whether a file holds nothing that anybody could miss: a lock, whole or torn."""
    found = os.pread(descriptor, _LONGEST + 1, 0).strip(b"\0")
    begins = found.startswith(_BEGINS) or _BEGINS.startswith(found)
    return begins and len(found) <= _LONGEST


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write(descriptor: int, path: pathlib.Path) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    owner["job"] = os.environ.get("SLURM_JOB_ID", "")
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    except OSError as error:  # a full disk; it names no file by itself
        raise OSError(error.errno, error.strerror, str(path)) from error


def _read(descriptor: int) -> dict[str, Any]:
    wanted = {
        "host": text(),
        "pid": whole(),
        "since": number(),
        "job": optional(text()),
    }
    try:
        return records.parse_json(os.pread(descriptor, _LONGEST, 0), wanted, "the lock")
    except InputError:  # torn by a kill, or not there yet
        return {}


def _refusal(path: pathlib.Path, owner: dict[str, Any], what: str) -> str:
    if not owner:
        return f"{what} is being written by a process that has just started"
    minutes = (time.time() - owner["since"]) / 60
    return (
        f"{what} is being written by process {owner['pid']} on {owner['host']} "
        f"(since {minutes:.0f} minutes); wait for it, or remove {path} if it is gone"
    )
