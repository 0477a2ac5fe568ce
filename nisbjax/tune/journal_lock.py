"""The lock under which hosts append to a journal: a link that says whose it is.

Making a link either succeeds or not, on every version of NFS, unlike the kernel's locks.
Optuna's own such lock does not say whose it is, so that whoever comes after a kill waits for
30 s, and leaves a renamed link where the kill fell into its release.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from absl import logging
from optuna.storages.journal import JournalFileSymlinkLock

from nisbjax.errors import InputError
from nisbjax.store import processes

GRACE_SECONDS = 30  # after which a lock of another host that nobody renews is nobody's


class JournalLock(JournalFileSymlinkLock):
    """Held while one process appends to a journal.

    Args:
      journal: the file; the link lies beside it.
    """

    def __init__(self, journal: Path):
        super().__init__(str(journal))
        self._journal = journal
        self._place = journal.with_name(f"{journal.name}.lock")
        own = os.getpid()
        self._own = f"{socket.gethostname()}.{own}.{processes.started(own)}"

    def acquire(self) -> bool:
        """Waits for the lock; one whose process is gone is taken over at once.

        Raises:
          InputError: what lies in the lock's place is no link.
        """
        wait, owner, since = 0.001, "", time.monotonic()
        while True:
            try:
                os.symlink(self._own, self._place)
                return True
            except FileExistsError:
                found = self._owner()
            if found != owner:
                owner, since = found, time.monotonic()
            stale = _is_dead(owner) or time.monotonic() - since > GRACE_SECONDS
            if owner and stale:  # without one it was let go between the two looks
                self._break(owner)
                continue
            time.sleep(wait)
            wait = min(2 * wait, 0.5)

    def release(self) -> None:
        """Lets the next one append; a lock that another took over meanwhile stays."""
        with contextlib.suppress(OSError):
            if os.readlink(self._place) == self._own:
                self._place.unlink()

    def _owner(self) -> str:
        """Whose it is, and since when; empty where nobody holds it."""
        try:
            return f"{os.readlink(self._place)} {self._place.lstat().st_mtime_ns}"
        except FileNotFoundError:
            return ""
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        raise InputError(
            f"{self._place} lies in the place of the journal's lock and is no lock of a "
            "journal: move it away and run again"
        )

    def _break(self, owner: str) -> None:
        """Removes a lock, unless another process of this host has done so before."""
        with open(self._journal, "rb") as journal:
            fcntl.flock(journal.fileno(), fcntl.LOCK_EX)
            if self._owner() == owner:
                logging.info("the lock %s is of a dead process", self._place)
                self._place.unlink(missing_ok=True)


def _is_dead(owner: str) -> bool:
    """Whether a lock's process was on this host and is gone; not known of other hosts."""
    name = owner.partition(" ")[0]
    host, process, started = ["", "", *name.rsplit(".", 2)][-3:]
    if host != socket.gethostname() or not process.isdecimal():
        return False
    return not processes.runs(int(process), int(started) if started.isdecimal() else 0)
