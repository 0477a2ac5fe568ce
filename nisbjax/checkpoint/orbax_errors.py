"""What Orbax says when a disk fails: which errors are the outside's, and said once.

Orbax raises an error to its caller, and logs it with all frames in each of its threads and
tasks besides: a full disk makes some 400 lines. Here it is one line.
"""

import logging
import os
import re
import sys
import traceback
from typing import Any

_ORBAX = f"{os.sep}orbax{os.sep}"


def words(error: Exception) -> str:
    """The system's reason, without the library's account of how it got there."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    number = re.search(r"os_error_code='(\d+)'", text)  # TensorStore's
    return os.strerror(int(number[1])) if number else text[:300]


def is_of_outside(error: Exception) -> bool:
    """Whether the file system failed; TensorStore says so as `RESOURCE_EXHAUSTED: ...`."""
    return isinstance(error, OSError) or bool(
        re.match("[A-Z]+(_[A-Z]+)*: ", str(error))
    )


def ignore_closed_loops() -> None:
    """Keeps TensorStore's writes that end late from reporting to nobody.

    Where one write of several fails, Orbax closes the event loop that all of them would
    wake, and each prints the frames of `RuntimeError: Event loop is closed`.
    """
    before = sys.unraisablehook

    def hook(lost: Any) -> None:
        if not isinstance(lost.exc_value, RuntimeError) or (
            str(lost.exc_value) != "Event loop is closed"
        ):
            before(lost)

    sys.unraisablehook = hook


def _said_again(record: logging.LogRecord) -> bool:
    """Whether an error of Orbax is logged, with its frames, that it raises to us as well.

    Each of its threads and tasks does: a full disk makes some 400 lines of it.
    """
    if not record.exc_info:
        return False
    if record.exc_info[2] is None:
        # TensorStore's answer to a write that nobody waits for any more: it has no frames.
        # Orbax raises the first that fails, and drops the others.
        error = record.exc_info[1]
        return isinstance(error, Exception) and is_of_outside(error)
    frames = traceback.extract_tb(record.exc_info[2])
    return any(
        _ORBAX in path for path in [record.pathname, *(f.filename for f in frames)]
    )


def say_once() -> None:
    """Keeps out of the log what Orbax raises to us as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(lambda record: not _said_again(record))
