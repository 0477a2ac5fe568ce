"""A report on disk: written whole, and never over one that somebody has edited.

People correct cuts in a report by hand before a mask is built from it. PyTC's script writes
over what is there; here a report that says something else is kept beside the new one.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator

from absl import logging

from nisbjax.errors import InputError
from nisbjax.qc import front_matter
from nisbjax.qc.front_matter import FrontMatter
from nisbjax.store import files


def write(path: pathlib.Path, front: FrontMatter, text: str) -> None:
    """Writes a report, and sets another one aside that is there.

    Args:
      path: of the report; the other one becomes `<stem>.before.md`, `.before-2.md`, ...
      front: what it says to the mask builder, to tell how the other differs.
      text: of the whole report.
    """
    _set_aside(path, front, text)
    files.write_text(path, text)


def _set_aside(path: pathlib.Path, front: FrontMatter, text: str) -> None:
    """Keeps a report that says something else: somebody may have edited it.

    Every copy has a number of its own, so that a later run replaces none of them.
    """
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return
    if before == text.encode():
        return
    for aside in _asides(path):
        if not os.path.lexists(aside):
            break
        if aside.is_file() and aside.read_bytes() == before:
            return
    with files.replacing(aside) as temporary:
        temporary.write_bytes(before)
    logging.warning(
        "%s %s; it is kept as %s. To use it, give it to --mode=mask, and the mask to "
        "--config.decode.affinity_mask",
        path,
        _difference(path, front),
        aside.name,
    )


def _asides(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """`report.before.md`, `report.before-2.md`, ..."""
    for number in itertools.count(1):
        suffix = f"-{number}" if number > 1 else ""
        yield path.with_name(f"{path.stem}.before{suffix}{path.suffix}")


def _difference(path: pathlib.Path, front: FrontMatter) -> str:
    try:
        found = front_matter.read(path)
    except InputError:
        return "had no front matter that could be read"
    others = dataclasses.asdict(front)
    differing = [k for k, v in dataclasses.asdict(found).items() if v != others[k]]
    return f"said another {', '.join(differing)}" if differing else "had another text"
