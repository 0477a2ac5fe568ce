"""The flags of the command line, and one line that says what is wrong with them.

absl and ml_collections report a wrong flag in ten kinds of exceptions, some with a message
quoted in a message, and BANIS and PyTC leave it at their library's own text.
"""

import itertools
import pathlib
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from nisbjax.errors import InputError

FLAGS = flags.FLAGS


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Sets absl's flags, which are defined by now.

    Args:
      arguments: the program's name, and what follows.

    Returns:
      What is no flag.

    Raises:
      InputError: a flag, a key or the file of the configuration that cannot be used.
    """
    path = _config_path(arguments)
    if path is not None and path.exists() and not path.is_file():
        # Looked at first: a pipe would be waited for.
        raise InputError(
            f"--config={path} is no file; wanted one such as configs/liconn.py"
        )
    try:
        left = FLAGS(list(arguments))
        getattr(FLAGS.config, "name", "")  # a file that did not load says so here
        if FLAGS.config is not None and not isinstance(FLAGS.config, ConfigDict):
            raise TypeError(f"its get_config gives a {type(FLAGS.config).__name__}")
        return left
    except (SyntaxError, UnicodeError) as error:  # of the file itself
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InputError(
            f"{path}{where}: {reason}; wanted Python such as configs/liconn.py"
        ) from None
    except Exception as error:  # noqa: BLE001 (the library raises ten kinds)
        text = str(error.args[0] if error.args else error)
    if path is not None and not path.is_file():
        raise InputError(
            f"no config file at {path}; wanted one such as configs/liconn.py"
        )
    text = " ".join(text.replace("\\n", " ").replace("\\'", "'").split())
    text = text.replace("''", "'")
    if text.count("'") % 2:  # of a quoted message within a message
        text = text.removesuffix("'")
    raise InputError(f"{text}; --help lists the flags, nisbjax/config.py the keys")


def _config_path(arguments: Sequence[str]) -> pathlib.Path | None:
    """The file of `--config=FILE` or `--config FILE`, without what stands after a colon."""
    found = ""
    for argument, after in itertools.zip_longest(
        arguments, arguments[1:], fillvalue=""
    ):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            found = value if equals else after
    return pathlib.Path(found.split(":")[0]) if found else None
