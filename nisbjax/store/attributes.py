"""What a file says of itself, as plain JSON values whatever wrote it.

Attributes come in any type and encoding. What JSON cannot hold becomes its text, since
nearly all attributes of other programs are never looked at; what cannot be read at all is
an error only where it is needed. PyTC reads the few that it looks at without checks.
"""

import json
import os
import stat
from typing import Any

from nisbjax.errors import InputError
from nisbjax.store import files
from nisbjax.store.places import Address, Place

_MOST_BYTES = (
    1 << 26
)  # of a JSON file; a zarr v3 group can carry that of all its arrays


def tidy(value: Any) -> Any:
    """A value as JSON has it, in text that every terminal and file can take."""
    return _printable(files.plain(value))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value


def read_json_object(path: Place) -> dict[str, Any] | None:
    """The JSON object in a small file that another program wrote.

    Returns:
      None where there is no such file, `null` in it, or a folder of that name.

    Raises:
      InputError: a file that cannot be read, is too long, or holds no JSON object.
    """
    if isinstance(path, Address):
        content = path.read()
        return None if content is None else _object(path, content)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a device, pipe or socket; wanted a file of JSON")
    if status.st_size > _MOST_BYTES:
        raise InputError(
            f"{path} has {status.st_size} bytes; wanted a JSON object of at most "
            f"{_MOST_BYTES}"
        )
    try:
        return _object(path, path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _object(path: Place, content: bytes) -> dict[str, Any] | None:
    try:
        value = tidy(json.loads(content.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON: {error}; mend the file, or remove it where it "
            "holds attributes alone"
        ) from None
    if value is not None and not isinstance(value, dict):
        kind = type(value).__name__
        raise InputError(f"{path} holds a JSON {kind}; wanted an object: {{...}}")
    return value
