"""What a key may hold: numbers in a range, words, triples, boxes, names and paths.

A check is a sentence and a predicate, so that the table of keys reads as documentation and
every refusal is made in one place. PyTC's configuration is checked by type alone
(OmegaConf's dataclasses); types are `ml_collections`' here too, but what flags put inside a
tuple is of any type, so that every check takes any value.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, NamedTuple

from nisbjax.config import NONE_WORDS
from nisbjax.errors import InputError
from nisbjax.geometry import Box

LARGEST = 2**31 - 1  # JAX counts steps, samples and voxels of a crop in int32
_SHOWN = 60  # characters of a value in a message


class Check(NamedTuple):
    """What is wanted, in words that follow "wanted", and whether a value is that."""

    wanted: str
    holds: Callable[[Any], bool]


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = repr(tuple(value) if isinstance(value, list) else value)
    except ValueError:  # a whole number of thousands of digits
        text = "a number of thousands of digits"
    except RecursionError:
        text = "values within values without end"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def require(key: str, value: Any, check: Check) -> None:
    """Refuses a value that is not what its key wants.

    Raises:
      InputError: naming the key, the value and what was wanted.
    """
    if not check.holds(value):
        raise InputError(f"{key} is {shown(value)}; wanted {check.wanted}")


def whole(low: int, high: int = LARGEST) -> Check:
    """A whole number from `low` to `high`, both included."""

    def holds(value: Any) -> bool:
        return _is_whole(value) and low <= value <= high

    ends = f"{low} or more" if high == LARGEST else f"{low} to {high}"
    return Check(f"a whole number, {ends}", holds)


def real(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> Check:
    """A finite number from `low` to `high`.

    Args:
      low: least value.
      high: greatest value.
      above: `low` itself is not among them.
      below: nor is `high`.
    """

    def holds(value: Any) -> bool:
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        enough = number > low if above else number >= low
        little = number < high if below else number <= high
        return math.isfinite(number) and enough and little

    if math.isinf(low) and math.isinf(high):
        return Check("a finite number", holds)
    if math.isinf(high):
        ends = f"more than {low:g}" if above else f"{low:g} or more"
        return Check(f"a finite number, {ends}", holds)
    ends = f"{'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
    return Check(f"a number in {ends}", holds)


def words(*choices: str | int) -> Check:
    """One of a few words, or of a few whole numbers."""

    def holds(value: Any) -> bool:
        return type(value) in (str, int) and value in choices

    return Check(f"one of {', '.join(map(str, choices))}", holds)


def switch() -> Check:
    return Check("True or False", lambda value: isinstance(value, bool))


def path(*endings: str) -> Check:
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
        return Check(f"a name that ends in {' or '.join(endings)}, on one line", holds)
    return Check("a path, on one line", holds)


def name() -> Check:
    """Text that can be the name of one file or folder."""

    def holds(value: Any) -> bool:
        if not isinstance(value, str) or not value.isprintable():
            return False
        return 0 < len(value) <= 200 and value not in (".", "..") and "/" not in value

    return Check("a name that a folder can have, without /", holds)


def box() -> Check:
    """ "" or `x0:x1,y0:y1,z0:z1`."""

    def holds(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return value in ("", "null", "None", "none") or not Box.parse(value).empty
        except InputError:
            return False

    return Check('a box x0:x1,y0:y1,z0:z1 in voxels that is not empty, or ""', holds)


def triple(part: Check, most: int | None = None, say: str = "") -> Check:
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

    return Check(say or f"three values x y z, each {part.wanted}", holds)


def several(part: Check, *, least: int = 1, distinct: bool = True) -> Check:
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
    return Check(f"{least} or more values{once}, each {part.wanted}", holds)


def either(*checks: Check) -> Check:
    """What any of the checks takes."""
    wanted = ", or ".join(check.wanted for check in checks)
    return Check(wanted, lambda value: any(check.holds(value) for check in checks))


def number_text(check: Check) -> Check:
    """Text that reads as a number of that kind."""

    def holds(value: Any) -> bool:
        try:
            return isinstance(value, str) and check.holds(float(value))
        except ValueError:
            return False

    return Check(check.wanted, holds)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
