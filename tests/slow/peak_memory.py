"""For programs that tests start: the most memory that this program itself has held."""

import pathlib
import re


def peak_bytes() -> int:
    """Peak resident bytes since the program began.

    `getrusage` would not do: a process that another starts inherits that one's peak.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024
