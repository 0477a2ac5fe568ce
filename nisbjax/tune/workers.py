"""Whose a trial is, and whether that process still runs.

Every RUNNING trial carries host and process in its attributes, and when the process started,
since a process id is used again. PyTC leaves trials of killed processes RUNNING for ever.
"""

import os
import socket
from pathlib import Path

from optuna.trial import FrozenTrial

from nisbjax.store import files


def identity() -> dict[str, str | int]:
    """Attributes of a trial that this process runs.

    The host comes last: who reads a trial half marked takes it for nobody's.
    """
    own = os.getpid()
    return {"process": own, "started": started(own), "host": socket.gethostname()}


def nobody() -> dict[str, str | int]:
    """Attributes of a trial that has been released: no process, of this host."""
    return {"process": 0, "host": socket.gethostname()}


def is_here(trial: FrozenTrial) -> bool:
    """Whether a trial is a process' of this host, or nobody's."""
    host = trial.user_attrs.get("host")
    return not host or host == socket.gethostname()


def is_dead(trial: FrozenTrial) -> bool:
    """Whether the process of a RUNNING trial is known to be gone.

    Call it while no other process of this host claims a trial, and this one runs none.
    Nothing is known of processes of other hosts.
    """
    if not is_here(trial):
        return False
    process = trial.user_attrs.get("process")
    if not trial.user_attrs.get("host") or not isinstance(process, int):
        return True  # killed between asking for the trial and saying whose it is
    if process <= 0 or process == os.getpid():
        return True
    began = trial.user_attrs.get("started")
    return not runs(process, began if isinstance(began, int) else 0)


def runs(process: int, began: int) -> bool:
    """Whether a process of this host runs, and is the one that started then.

    Args:
        process: its id.
        began: when, as `started` says it; 0 if that is not known.
    """
    return files.alive(process) and began in (0, started(process))


def started(process: int) -> int:
    """When a process started, in clock ticks since the host did; 0 if nobody knows."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(facts[19])
    except (OSError, ValueError, IndexError):
        return 0
