"""Kinds that keys alone have: triples, boxes, names and paths; for the rest `store.schema`.

A kind is a sentence and a predicate, so that the table of keys reads as documentation and
every refusal is made in one place. PyTC's configuration is checked by type alone
(OmegaConf's dataclasses); types are `ml_collections`' here too, but what flags put inside a
tuple is of any type, so that every kind takes any value.
"""

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import schema
from nisbjax.store.address import is_address
from nisbjax.store.schema import Kind, kind

NONE_WORDS = ("", "null", "None", "none")
LARGEST = 2**31 - 1  # JAX counts steps, samples and voxels of a crop in int32
LARGEST_LOGIT = 20.0  # of an affinity; float16 ends below 17
_SHOWN = 60  # characters of a value in a message


def shown(value: Any) -> str:
    """A value for a message, cut in its middle where it is long: a path ends with what
    tells it from others."""
    try:
        text = repr(tuple(value) if isinstance(value, list) else value)
    except ValueError:  # a whole number of thousands of digits
        text = "a number of thousands of digits"
    except RecursionError:
        text = "values within values without end"
    if len(text) <= _SHOWN:
        return text
    half = (_SHOWN - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def optional(value: str) -> str:
    """ "" for any of the words that mean none on a command line."""
    return "" if value in NONE_WORDS else value


def require(key: str, value: Any, wanted: Kind) -> None:
    """Refuses a value that is not what its key wants.

    Raises:
      InputError: naming the key, the value and what was wanted.
    """
    found = wanted.problem(value)
    if found is not None and found.at:  # a part of it
        raise InputError(f"{key}: {found.at} {found.came}; wanted {found.wanted}")
    if found is not None:
        raise InputError(f"{key} is {shown(value)}; wanted {wanted.wanted}")


def whole(low: int, high: int = LARGEST) -> Kind:
    """A whole number from `low` to `high`, both included."""
    return schema.whole(low, high, most=LARGEST)


def switch() -> Kind:
    return kind("True or False", lambda value: isinstance(value, bool))


def path(*endings: str) -> Kind:
    """Text that can be a path, "" for none; whether anything is there is not asked.

    Args:
      endings: one of them ends the name; none for any name.
    """

    def holds(value: Any) -> bool:
        if not isinstance(value, str) or not value.isprintable() or len(value) >= 4096:
            return False
        if not endings or value in NONE_WORDS:
            return True
        found = PurePath(value)
        return found.suffix in endings

    if endings:
        return kind(f"a name that ends in {' or '.join(endings)}, on one line", holds)
    return kind("a path, on one line", holds)


def path_here(*endings: str) -> Kind:
    """The same of what is written, which no address can be."""
    wanted = path(*endings)

    def holds(value: Any) -> bool:
        return wanted.problem(value) is None and not is_address(value)

    converted = " (--mode=convert copies it to one)" if ".zarr" in endings else ""
    said = f"{wanted.wanted}, of this machine and no address{converted}"
    return kind(said, holds)


def name() -> Kind:
    """Text that can be the name of one file or folder."""

    def holds(value: Any) -> bool:
        if not isinstance(value, str) or not value.isprintable():
            return False
        return 0 < len(value) <= 200 and value not in (".", "..") and "/" not in value

    return kind("a name that a folder can have, without /", holds)


def box() -> Kind:
    """ "" or `x0:x1,y0:y1,z0:z1`."""

    def holds(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return value in ("", "null", "None", "none") or not Box.parse(value).empty
        except InputError:
            return False

    return kind('a box x0:x1,y0:y1,z0:z1 in voxels that is not empty, or ""', holds)


def axes() -> Kind:
    """ "" or one letter for each axis."""

    def holds(value: Any) -> bool:
        letters = value if isinstance(value, str) else "?"
        one_each = len(letters) == len(set(letters))
        return not optional(letters) or (
            one_each and set("xyz") <= set(letters) <= set("xyzct")
        )

    return kind('letters of x y z c t, x y z among them, as zyx or xyzc, or ""', holds)


def triple(part: Kind, most: int | None = None, say: str = "") -> Kind:
    """Three values, one for each of x, y and z.

    Args:
      part: each of them.
      most: the largest product.
      say: what is wanted, instead of a sentence made from `part`.
    """

    def holds(value: Any) -> bool:
        if not _is_sequence(value) or len(value) != 3:
            return False
        return all(map(part.holds, value)) and (
            most is None or math.prod(value) <= most
        )

    return kind(say or f"three values x y z, each {part.wanted}", holds)


def or_none(values: Kind) -> Kind:
    """A sequence of that kind, or an empty one."""

    def holds(value: Any) -> bool:
        return (_is_sequence(value) and not len(value)) or values.holds(value)

    return kind(f"{values.wanted}, or ()", holds)


def several(part: Kind, *, least: int = 1, distinct: bool = True) -> Kind:
    """A sequence of values.

    Args:
      part: each of them.
      least: how many there are at least.
      distinct: none may come twice.
    """

    def holds(value: Any) -> bool:
        if not _is_sequence(value) or not least <= len(value) <= LARGEST:
            return False
        if not all(map(part.holds, value)):
            return False
        kept = [tuple(v) if isinstance(v, list) else v for v in value]
        return not distinct or len(set(kept)) == len(kept)

    once = ", none twice" if distinct else ""
    return kind(f"{least} or more values{once}, each {part.wanted}", holds)


def number_text(of: Kind) -> Kind:
    """Text that reads as a number of that kind."""

    def holds(value: Any) -> bool:
        try:
            return isinstance(value, str) and of.holds(float(value))
        except ValueError:
            return False

    return kind(of.wanted, holds)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
