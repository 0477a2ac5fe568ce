"""The command that comes next, such that it works when it is pasted.

It begins as this one was begun (`.venv/bin/python -m nisbjax`, `nisbjax`), and takes along what
this one set and the run does not remember.
"""

import functools
import os
import pathlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nisbjax.config import base_config, flatten

_CONFIG = "config."
_CACHE = "compilation_cache"
_CARRIED = ("config", "checkpoint", _CACHE)


class Start(NamedTuple):
    """How this process was started.

    Attributes:
      program: the words before our arguments, the interpreter first.
      arguments: ours.
    """

    program: Sequence[str]
    arguments: Sequence[str]

    @classmethod
    def of(cls, command: Sequence[str], arguments: Sequence[str]) -> "Start":
        """That of a whole command, of which some words at the end are arguments."""
        split = len(command) - len(arguments)
        return cls(command[:split], command[split:])


def text(
    start: Start,
    run: pathlib.Path,
    mode: str,
    keys: Mapping[str, str],
    *,
    remembered: bool = False,
) -> str:
    """One line for a shell.

    Args:
      start: of this process.
      run: the run's folder.
      mode: that comes next.
      keys: of the configuration, that it sets; "" leaves a key of this start out.
      remembered: whether the run remembers what this start was told.
    """
    given = _given(start.arguments)
    if remembered:
        given = {name: value for name, value in given.items() if name == _CACHE}
    wanted = {f"{_CONFIG}{key}": value for key, value in keys.items()}
    given = {name: value for name, value in given.items() if name not in wanted}
    flags = [f"--mode={mode}", f"--workdir={run}"]
    for name, value in {**given, **wanted}.items():
        if value or name in given:
            flags.append(f"--{name}={value}")
    return shlex.join([*_program(start.program), *flags])


def _program(words: Sequence[str]) -> list[str]:
    """How this program is called, without the interpreter where a script stands for it."""
    script = words[-1] if words else "nisbjax"
    if "-m" in words or not words or not os.path.basename(script).startswith("nisbjax"):
        return list(words) or [script]
    found = shutil.which("nisbjax")
    return ["nisbjax"] if found and os.path.samefile(found, script) else [script]


def _given(arguments: Sequence[str]) -> dict[str, str]:
    """The flags of a start that the next one needs, by their names."""
    found, rest = {}, iter(arguments)
    for argument in rest:
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            continue
        switch = name.removeprefix("no").removeprefix(_CONFIG) in _switches()
        if switch and not equals:
            found[name.removeprefix("no")] = str(not name.startswith("no"))
        elif name in _CARRIED or name.startswith(_CONFIG):
            found[name] = value if equals else next(rest, "")
    return found


@functools.cache
def _switches() -> frozenset[str]:
    """Keys that are true or false, whose flags need no value: `--noconfig.ema.validate`."""
    found = flatten(base_config())
    return frozenset(key for key, value in found.items() if isinstance(value, bool))
