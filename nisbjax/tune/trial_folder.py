"""The folder in which a tuner decodes its trials: its own, and gone when it ends.

Its name carries host and process, so what a killed tuner left is known and removed by the
next. PyTC decodes in memory and has no such folder.
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from nisbjax.store import processes


@contextlib.contextmanager
def trial_folder(parent: Path) -> Iterator[Path]:
    """A name for this process' folder in `parent`, which is removed at the end of a `with`.

    So are the folders of dead processes of this host, and `parent` once it is empty.

    Args:
      parent: of the folders of all tuners.

    Yields:
      The folder's path; it is not made.
    """
    own = parent / f"{socket.gethostname()}.{os.getpid()}"
    _sweep(parent)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        _remove_if_empty(parent)


def _sweep(parent: Path) -> None:
    for found in parent.iterdir() if parent.is_dir() else ():
        # A name without a host is an earlier version's.
        host, _, process = found.name.rpartition(".")
        if host not in ("", socket.gethostname()) or not process.isdecimal():
            continue
        if int(process) == os.getpid() or not processes.alive(int(process)):
            shutil.rmtree(found, ignore_errors=True)
    _remove_if_empty(parent)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
