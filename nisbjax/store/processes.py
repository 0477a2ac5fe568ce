"""Whether a process of this host still runs, so that what a dead one left can be swept.

A process id is used again, so the moment at which a process started tells two of one id
apart where it was noted. BANIS and PyTC sweep nothing.
"""

import os
from pathlib import Path


def alive(process: int) -> bool:
    """Whether a process of this host runs, or has ended and is not yet waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no such number
        return process < 1 << 31
    return True


def runs(process: int, began: int) -> bool:
    """Whether a process of this host runs, and is the one that started then.

    Args:
      process: its id.
      began: when, as `started` says it; 0 if that is not known.
    """
    return alive(process) and began in (0, started(process))


def started(process: int) -> int:
    """When a process started, in clock ticks since the host did; 0 if nobody knows."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(facts[19])
    except (OSError, ValueError, IndexError):
        return 0
