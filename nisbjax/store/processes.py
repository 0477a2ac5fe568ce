"""Whether a process of this host still runs, so that what a dead one left can be swept.

A process id is used again, so the moment at which a process started tells two of one id
apart where it was noted. BANIS and PyTC sweep nothing.
"""

import os
from pathlib import Path


def alive(process: int) -> bool:
    """Whether a process of this host runs; one that has ended and waits for its parent to
    ask how does not (in a container whose first process asks nobody it stays for ever)."""
    if _state(process)[:1] in (["Z"], ["X"]):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no such number
        return process < 1 << 31
    return True


def runs(process: int, began: int) -> bool:
    """Whether a process of this host runs, and is the one that started then.

    Where nobody may know when it started, one of that id counts as it: what it left is not
    swept, which somebody may do by hand, and a lock of one that runs is not broken.

    Args:
      process: its id.
      began: when, as `started` says it; 0 if that is not known.
    """
    if not alive(process):
        return False
    found = started(process)  # 0 where /proc hides others' processes (hidepid)
    return 0 in (began, found) or began == found


def started(process: int) -> int:
    """When a process started, in clock ticks since the host did; 0 if nobody knows."""
    try:
        return int(_state(process)[19])
    except (ValueError, IndexError):
        return 0


def _state(process: int) -> list[str]:
    """What Linux says of a process: its state first; empty if nobody knows."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
