"""Where a run's configuration comes from: a preset, a file, or the run itself.

    --config=liconn              a preset by its name, of `configs/`
    --config=my/own.py           a file with get_config()
    --config=RUN/config.json     what a run was started with
    --workdir=RUN                the same, where the run has begun

The presets stand in `configs/` of the checkout, which `nisbjax/configs` links to, so that an
installed package has them too. PyTC takes paths of YAML files alone.
"""

import ast
import os
import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Collection, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from nisbjax.config import base_config, flatten
from nisbjax.errors import InputError
from nisbjax.keys import nearest, ranges
from nisbjax.store import records
from nisbjax.store.schema import table_of
from nisbjax.typing import Config

_PACKAGE = pathlib.Path(__file__).parents[1]
# The second where a checkout was copied without its links.
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
_WANTED = "wanted a preset such as liconn, or a file such as configs/liconn.py"

# ml_collections' words for a value that is none of a key's type.
_OTHER_TYPE = re.compile(
    r"override field '(\w+)'.*?\. (.*) is of original type <class '(\w+)'> and .* "
    r"<class '(\w+)'>",
    re.DOTALL,
)


def folder() -> pathlib.Path:
    """Of the presets."""
    return next((path for path in _FOLDERS if path.is_dir()), _FOLDERS[0])


def summaries() -> dict[str, str]:
    """The first line of each preset's docstring, by name; none is run."""
    found = {}
    for path in sorted(folder().glob("*.py")):
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        found[path.stem] = said.partition("\n")[0]
    return found


def take(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """What `--config` names, or else the `config.json` of `--workdir`; and the others.

    Args:
      arguments: of the command line.

    Returns:
      A name or path, "" for none, and the arguments without `--config`.
    """
    named, workdir, left = "", "", list(arguments)
    i = 0
    while i < len(left) and left[i] != "--":
        name, equals, value = left[i].lstrip("-").partition("=")
        if not left[i].startswith("-") or name not in ("config", "workdir"):
            i += 1
            continue
        count = 1 if equals else 2
        value = value if equals else "".join(left[i + 1 : i + 2])
        if name == "config":
            named = value
            del left[i : i + count]
        else:
            workdir = value
            i += count
    remembered = pathlib.Path(workdir) / "config.json"
    if not named and workdir and remembered.exists():
        named = str(remembered)
    return named, left


def load(source: str) -> Config:
    """The configuration of a preset, a file or a run, locked.

    Args:
      source: as `take` finds it; `FILE:TEXT` gives the text to `get_config`.

    Raises:
      InputError: no such preset or file, or it holds no configuration: with its line.
    """
    name, _, argument = source.partition(":")
    path = pathlib.Path(name)
    if name.isidentifier() and not path.is_file():
        path = folder() / f"{name}.py"
        if not path.is_file():
            near = nearest.words(name, summaries())
            said = f"did you mean {' or '.join(near)}" if near else _WANTED
            presets = ", ".join(summaries())
            raise InputError(
                f"no preset is called {name}; {said} (there are {presets})"
            )
    if not path.exists():
        raise InputError(f"no config file at {path}; {_WANTED}")
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"--config={path} is no file; {_WANTED}")
    if path.suffix == ".json":
        return of_run(path)
    return _of_python(path, [argument] if argument else [])


def _of_python(path: pathlib.Path, arguments: Sequence[str]) -> Config:
    try:
        config = runpy.run_path(str(path))["get_config"](*arguments)
    except SyntaxError as error:
        where = f"{error.filename or path}, line {error.lineno}"
        raise InputError(
            f"{where}: {error.msg}; wanted a Python file that defines get_config()"
        ) from None
    except Exception as error:  # noqa: BLE001 (whatever a file of the user's does)
        raise InputError(f"{_place(path)}: {_said(error)}") from None
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{path}: its get_config gives a {type(config).__name__}; wanted that of "
            "base_config(), changed"
        )
    return config.lock()


def _place(path: pathlib.Path) -> str:
    """The file, and the last of its lines that was run."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _said(error: Exception) -> str:
    """An exception in few words: ml_collections adds all fields to a misspelt one."""
    if isinstance(error, KeyError) and error.args == ("get_config",):
        return (
            "it has no get_config(); wanted a function of that name, which returns "
            "base_config(), changed"
        )
    text = str(error.args[0]) if error.args else str(error)
    if isinstance(error, AttributeError | KeyError) and "config is locked" in text:
        return nearest.refusal(text.split('"')[1])
    other = _OTHER_TYPE.search(text)
    if other:
        name, value, given, wanted = other.groups()
        as_three = f", as ({value}, {value}, {value})" if wanted == "tuple" else ""
        return f"{name} is {value}, of type {given}; wanted a {wanted}{as_three}"
    said = f"{type(error).__name__}: {text.partition(chr(10))[0][:200]}"
    return f"{said}; wanted a get_config() that returns base_config(), changed"


def of_run(path: str | os.PathLike) -> Config:
    """The configuration that `config.json` of a run holds.

    A value that followed another's (`predict.window`) goes on to follow it. Keys that the
    file does not have are of later versions, and keep their defaults.

    Raises:
      InputError: the file cannot be read, or a value is none of its key.
    """
    found = records.read_json(
        pathlib.Path(path), table_of(), "name another with --config"
    )
    config = base_config()
    before = flatten(config)
    known = {key: _tuples(found[key]) for key in before if key in found}
    try:
        ranges.check_flat(known)
        for key, value in known.items():
            if before[key] != found[key] and key not in _FOLLOWERS:
                _set(config, key, value)
        led = flatten(config)
        for key in _FOLLOWERS & known.keys():
            if led[key] != found[key]:
                _set(config, key, known[key])
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}; name another with --config") from None
    for names, what in (
        (found.keys() - before.keys(), "are no keys of this version"),
        (
            before.keys() - found.keys(),
            "are not in it and keep their defaults",
        ),
    ):
        if names:
            said = ", ".join(_by_section(names, before.keys() | found.keys()))
            logging.warning("%s: %s %s", path, said, what)
    return config


def _by_section(names: Collection[str], known: Collection[str]) -> list[str]:
    """Keys in order; `section.*` for a section all of whose keys are among them."""
    parted = {name: name.rpartition(".")[0] for name in known}
    others = {parted[name] for name in known if name not in names}
    return sorted(
        {
            name if section in others or not section else f"{section}.*"
            for name, section in parted.items()
            if name in names
        }
    )


_FOLLOWERS = {"schedule.steps", "predict.window"}


def _set(config: Config, key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    config[name] = value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
