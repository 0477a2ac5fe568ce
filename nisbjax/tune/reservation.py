"""Who works on a study: one tuner alone, or several of a host that take turns.

Beside the study's file lies a lock that the kernel releases when its process dies, however
it dies: whoever holds it alone knows that no one runs the trials that are still marked
RUNNING. PyTC's studies have none.
"""

import contextlib
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

from nisbjax.errors import InputError
from nisbjax.store import processes
from nisbjax.tune.place import file_of, is_journal, require_place, unusable

BUSY_SECONDS = 30  # for which a tuner alone is waited for before it is said


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
