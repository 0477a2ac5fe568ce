"""Log lines for a person: the time of day, the message, and little else.

absl puts date, thread and source line before a message, more than half of a terminal's 80
columns. Here a line is `12:00:05 wrote run/slices.png`; a warning says so, one of several
processes its number, the first line of a day its date. Paths below the working directory
are shown from there, and on a terminal long lines break between words.
"""

import contextlib
import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging as absl_logging

_INDENT = " " * 9  # below the message
_number: list[int] = []  # of this process, where there are several


class LineFormatter(logging.Formatter):
    """Formats records as this module says.

    Args:
      width: columns that a line may fill; 0 for any number.
      now: a record's seconds as a date and a time of day.
    """

    def __init__(
        self,
        width: Callable[[], int] = lambda: 0,
        now: Callable[[float], time.struct_time] = time.localtime,
    ):
        super().__init__()
        self._width = width
        self._now = now
        self._day = ""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, or several where it is long or has several itself."""
        at = self._now(record.created)
        begin = time.strftime("%H:%M:%S ", at)
        day = time.strftime("%Y-%m-%d ", at)
        if day != self._day:
            self._day, begin = day, day + begin
        if _number:
            begin += f"[{_number[0]}] "
        if record.levelno >= logging.ERROR:
            begin += "error: "
        elif record.levelno >= logging.WARNING:
            begin += "warning: "
        lines = from_here(record.getMessage()).split("\n")
        if record.exc_info:
            lines += self.formatException(record.exc_info).split("\n")
        lines = [begin + lines[0], *(_INDENT + line for line in lines[1:])]
        width = self._width()
        if width:
            lines = [part for line in lines for part in _broken(line, width)]
        return "\n".join(lines)


class _Handler(logging.StreamHandler):
    """Writes to whatever is standard error by then, above bars of progress."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass

    def emit(self, record: logging.LogRecord) -> None:
        with _above_bars():
            super().emit(record)


@contextlib.contextmanager
def _above_bars() -> Iterator[None]:
    """Takes bars off the terminal, and draws them again."""
    drawn = sys.modules.get("tqdm")  # not imported for a line
    if drawn is None or not on_terminal():
        yield
        return
    with drawn.tqdm.external_write_mode(file=sys.stderr):
        yield


_HANDLER = _Handler()


def show(folder: str) -> None:
    """Shows records of the modules below a folder, and only warnings of all others."""
    root = logging.getLogger()
    root.removeHandler(absl_logging.get_absl_handler())
    _HANDLER.setFormatter(LineFormatter(terminal_width))
    _HANDLER.filters[:] = [
        lambda record: (
            record.levelno > logging.INFO or record.pathname.startswith(folder)
        )
    ]
    if _HANDLER not in root.handlers:
        root.addHandler(_HANDLER)
    absl_logging.set_verbosity(absl_logging.INFO)


def number_process(number: int) -> None:
    """Has every line of this process begin with its number, from 0."""
    _number[:] = [number]


def on_terminal() -> bool:
    """Whether standard error goes to a terminal."""
    try:
        return sys.stderr.isatty()
    except (ValueError, AttributeError):  # it was closed, or never opened
        return False


def terminal_width() -> int:
    """Columns of the terminal that standard error goes to; 0 where it is none."""
    with contextlib.suppress(OSError):
        if on_terminal():
            return os.get_terminal_size(sys.stderr.fileno()).columns
    return 0


def from_here(text: str) -> str:
    """The text with every path below the working directory as it is called from there."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return text
    if here == os.sep:
        return text
    return re.sub(rf"(?<![\w./~-]){re.escape(here)}/(?=[^\s/])", "", text)


def _broken(line: str, width: int) -> list[str]:
    """A line in parts of a width, below one another; words and paths stay whole."""
    if len(line) <= width:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
