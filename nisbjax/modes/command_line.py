"""The flags of the command line, and one line that says what is wrong with them.

absl and ml_collections report a wrong flag in ten kinds of exceptions, some with a message
quoted in a message, and BANIS and PyTC leave it at their library's own text. The libraries
still parse values; names of keys, triples and files of configurations are looked at here.
"""

import ast
import re
from collections.abc import Sequence
from typing import NoReturn

from absl import flags
from ml_collections import config_flags

from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.keys import nearest, ranges
from nisbjax.modes import presets
from nisbjax.typing import Config

FLAGS = flags.FLAGS
_OVERRIDE = re.compile(r"(--?(?:no)?)config\.([^=]*)(?:=(.*))?", re.DOTALL)
_NAME = re.compile(r"flag --config\.([^=]*)=")


def parse_flags(
    arguments: Sequence[str], without_config: Sequence[str] = ()
) -> list[str]:
    """Sets absl's flags, which are defined by now but for the configuration's.

    Args:
      arguments: the program's name, and what follows.
      without_config: modes whose keys have the defaults where no configuration is named.

    Returns:
      What is no flag.

    Raises:
      InputError: a flag, a key or the file of the configuration that cannot be used.
    """
    try:
        arguments = FLAGS.read_flags_from_files(list(arguments), force_gnu=False)
    except flags.Error as error:
        _refuse(error)
    source, arguments = presets.take(arguments)
    config = presets.load(source) if source else None
    if config is None and _mode(arguments) in without_config:
        config = base_config()
    arguments = [arguments[0], *_checked(arguments[1:], config)]
    try:
        if config is None:
            flags.DEFINE_string("config", None, "", flag_values=FLAGS)
        else:
            config_flags.DEFINE_config_dict(
                "config", config, flag_values=FLAGS, sys_argv=arguments
            )
        return FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        raise InputError(_unknown_flag(error.flagname)) from None
    except Exception as error:  # noqa: BLE001 (the library raises ten kinds)
        _refuse(error)


def _mode(arguments: Sequence[str]) -> str:
    """What `--mode` says; "" without it."""
    for i, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "mode":
            return value if equals else "".join(arguments[i + 1 : i + 2])
    return ""


def _refuse(error: Exception) -> NoReturn:
    """What a library says of a flag, in one line, with what its key wants."""
    text = str(error.args[0] if error.args else error)
    text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split())
    text = text.replace("''", "'")
    if text.count("'") % 2:  # of a quoted message within a message
        text = text.removesuffix("'")
    named = _NAME.search(text)
    if named and named[1] in ranges.RANGES:
        raise InputError(f"{text}; wanted {ranges.RANGES[named[1]].wanted}") from None
    raise InputError(f"{text}; --help lists the flags") from None


def _checked(arguments: Sequence[str], config: Config | None) -> list[str]:
    """The same arguments, their keys known and single numbers for triples made triples."""
    found = list(arguments)
    for i, argument in enumerate(arguments):
        if argument == "--":
            break
        match = _OVERRIDE.fullmatch(argument)
        if not match:
            continue
        dashes, key, value = match.groups()
        if config is None:
            raise InputError(
                f"{argument.partition('=')[0]} is given without --config=NAME or the "
                "--workdir of a run that has begun"
            )
        if key not in ranges.RANGES:
            raise InputError(nearest.refusal(key))
        following = value is None and i + 1 < len(arguments)
        whole = _triple(key, arguments[i + 1] if following else value or "")
        if whole:
            found[i + following] = (
                whole if following else f"{dashes}config.{key}={whole}"
            )
    return found


def _triple(key: str, text: str) -> str:
    """A number three times, where its key wants a triple; else ""."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return ""
    wanted = ranges.RANGES[key]
    triple = not isinstance(value, tuple | list) and not wanted.holds((value,))
    return repr((value,) * 3) if triple and wanted.holds((value,) * 3) else ""


def _unknown_flag(name: str) -> str:
    """A line on a flag that there is none of: `--data.root` is meant to be a key."""
    name = name.partition("=")[0]
    own = [flag for flag in FLAGS if not flag.startswith("config.")]
    near = [f"--{flag}" for flag in nearest.words(name, own)]
    near += [f"--config.{key}" for key in nearest.keys(name)]
    said = f"did you mean {' or '.join(near)}" if near else "--help lists the flags"
    return f"--{name} is no flag; {said}"
