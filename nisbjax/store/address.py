"""Addresses as text: what is one, and what may not stand in it.

`s3://bucket/em.zarr`, `gs://bucket/em`, `https://host/em` stand wherever a path of a volume
may. Keys of an account never stand in one, for it goes into logs and attributes. What
lies there is read by `places`.
"""

import os
import pathlib
import re

from nisbjax.errors import InputError

# A pathlib.Path that was made of one has a slash less.
PATTERN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+([^/].*)", re.DOTALL)


def is_address(text: object) -> bool:
    """Whether a path is one of another machine, by its first letters."""
    found = PATTERN.fullmatch(str(text))
    return found is not None and not os.path.lexists(found[1] + ":")


def local_path(text: str) -> pathlib.Path:
    """A path of this machine, to write to, and no address such as `s3://bucket/raw`.

    Raises:
      InputError: an address.
    """
    if is_address(text):
        raise InputError(
            f"{text} is not a local path, and only --mode=convert writes to addresses; name a "
            "path of this machine, and convert what it holds to there afterwards"
        )
    return pathlib.Path(text)


def join(root: str | os.PathLike, inner: str) -> str:
    """A path below a root, either of which may be an address; an address stands alone."""
    if is_address(inner) or not os.fspath(root):
        return str(pathlib.Path(inner)) if not is_address(inner) else _tidy(inner)
    if is_address(root):
        return f"{_tidy(os.fspath(root)).rstrip('/')}/{inner.lstrip('/')}"
    return str(pathlib.Path(root) / inner)


def absolute(text: str | os.PathLike) -> str:
    """A path as it is from anywhere; an address is so already."""
    text = os.fspath(text)
    return _tidy(text) if is_address(text) else os.path.abspath(text)


def _tidy(text: str) -> str:
    found = PATTERN.fullmatch(text)
    return text if found is None else f"{found[1]}://{found[2]}"


def require_public(what: str, text: str) -> None:
    """Refuses an address that holds what nobody should read in a log; it is not said."""
    scheme, _, rest = text.partition("://")
    host, _, key = rest.partition("/")
    if "@" in host:
        plain = f"{scheme}://{host.rpartition('@')[2]}"
        raise InputError(
            f"{what} at {plain} has a user or password in it, which would stand in logs and "
            "files; leave them to ~/.aws, --config.remote.profile or the environment"
        )
    if "?" in key or "?" in host:
        plain = text.partition("?")[0]
        raise InputError(
            f"{plain} has a query behind it, which may be a signature that would stand in "
            "logs and files; wanted an address without one, read by an account or by anyone"
        )
