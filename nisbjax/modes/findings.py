"""What a check has against a run: all of it, where a mode ends at the first.

PyTC and BANIS find out one fault at a time, hours apart.
"""

import contextlib
from collections.abc import Iterator

from absl import logging

from nisbjax.modes import outside


class Findings:
    """Lines, each once, in the order in which they were found.

    Attributes:
      wrong: what a mode would refuse, or what makes its work useless.
      warnings: what deserves a look.
    """

    def __init__(self):
        self.wrong: list[str] = []
        self.warnings: list[str] = []

    def refuse(self, line: str) -> None:
        """Notes what is wrong."""
        _add(self.wrong, line)

    def warn(self, line: str) -> None:
        """Notes what deserves a look."""
        _add(self.warnings, line)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Notes what the body of a `with` is refused for, as the mode would say it."""
        try:
            yield
        except Exception as error:
            line = outside.explain(error)
            if line is None:  # a defect of ours
                raise
            self.refuse(line)

    def text(self) -> str:
        """The warnings, then what is wrong, or that nothing is: `ready`."""
        lines = []
        for title, found in (("worth a look:", self.warnings), ("wrong:", self.wrong)):
            if found:
                numbered = (f"  {i}. {line}" for i, line in enumerate(found, start=1))
                lines += [title, *numbered, ""]
        return "\n".join(lines[:-1] if self.wrong else [*lines, "ready"])


def _add(lines: list[str], line: str) -> None:
    line = " ".join(line.split())
    if line not in lines:
        lines.append(line)
        logging.debug("found: %s", line)
