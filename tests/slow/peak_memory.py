"""For programs that tests start: the most memory that this program itself has held."""

import pathlib
import re


def forget_peak() -> None:
    """From here on `peak_bytes` is the most since now (Linux, `proc_pid_clear_refs(5)`)."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Peak resident bytes since the program began, or since `forget_peak`.

    `getrusage` would not do: a process that another starts inherits that one's peak.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024
