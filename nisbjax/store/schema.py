"""What a value must be, of a small file or of a key: kinds, which make a schema.

A schema is a dict from keys to kinds, or one kind. It says in words what it wants, so that
whoever reads a file (`nisbjax.store.records`) or asks a key (`nisbjax.keys.ranges`) can name
the key, what came and what was wanted.
JSON Schema and pydantic do far more, in messages of many lines.
"""

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, SupportsFloat, TypeAlias

_LARGEST = 2**63 - 1


class Problem(NamedTuple):
    """What is wrong with a value.

    Attributes:
      at: the way to it, such as `decoding_params.threshold`; "" for the whole.
      came: in words, such as `is 'high'`.
      wanted: in words, such as `a number in [0, 1]`.
    """

    at: str
    came: str
    wanted: str


class Kind(NamedTuple):
    """What a value must be.

    Attributes:
      wanted: in words.
      problem: what is wrong with a value, or None.
      required: whether the key must be there.
    """

    wanted: str
    problem: Callable[[Any], Problem | None]
    required: bool = True

    def holds(self, value: Any) -> bool:
        """Whether a value is of this kind."""
        return self.problem(value) is None


Schema: TypeAlias = Kind | Mapping[str, "Schema"]


def number(
    low: SupportsFloat = -math.inf,
    high: SupportsFloat = math.inf,
    *,
    above: bool = False,
    below: bool = False,
) -> Kind:
    """A finite number from `low` to `high`.

    Args:
      low: least value.
      high: greatest value.
      above: `low` itself is not among them.
      below: nor is `high`.
    """
    low, high = float(low), float(high)

    def fits(value: Any) -> bool:
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        try:
            found = float(value)
        except OverflowError:
            return False
        enough = found > low if above else found >= low
        little = found < high if below else found <= high
        return math.isfinite(found) and enough and little

    if math.isinf(low) and math.isinf(high):
        return kind("a finite number", fits)
    if math.isinf(high):
        ends = f"more than {low:g}" if above else f"{low:g} or more"
        return kind(f"a finite number, {ends}", fits)
    ends = f"{'(' if above else '['}{low:g}, {high:g}{')' if below else ']'}"
    return kind(f"a number in {ends}", fits)


def whole(low: int = 0, high: int = _LARGEST, *, most: int = _LARGEST) -> Kind:
    """A whole number from `low` to `high`, both included.

    Args:
      low: least value.
      high: greatest value.
      most: a `high` that goes without saying, of 64 bits or less.
    """

    def fits(value: Any) -> bool:
        if not isinstance(value, Integral) or isinstance(value, bool):
            return False
        return low <= int(value) <= high

    ends = f"{low} or more" if high == most else f"{low} to {high}"
    return kind(f"a whole number, {ends}", fits)


def text() -> Kind:
    """Text that can be written as UTF-8."""
    return kind("text", _is_text)


def boolean() -> Kind:
    return kind("true or false", lambda value: isinstance(value, bool))


def nothing() -> Kind:
    return kind("null", lambda value: value is None)


def anything() -> Kind:
    return kind("anything", lambda value: True)


def one_of(*words: Any) -> Kind:
    """One of some words or numbers, of the same type too: 1 is not True."""

    def fits(value: Any) -> bool:
        return any(type(value) is type(word) and value == word for word in words)

    shown_words = (str(word) or '""' for word in words)
    return kind(f"one of {', '.join(shown_words)}", fits)


def list_of(item: Schema, length: int | None = None) -> Kind:
    """A list of values of one kind."""
    inner = as_kind(item)
    many = "" if length is None else f"{length} of "
    wanted = f"a list ({many}{inner.wanted})"

    def problem(value: Any) -> Problem | None:
        if not isinstance(value, list | tuple) or length not in (None, len(value)):
            return Problem("", f"is {shown(value)}", wanted)
        return _first((f"[{i}]", inner, one) for i, one in enumerate(value))

    return Kind(wanted, problem)


def table_of(item: Schema | None = None) -> Kind:
    """An object with any keys, whose values are of one kind."""
    inner = anything() if item is None else as_kind(item)

    def problem(value: Any) -> Problem | None:
        if not isinstance(value, dict):
            return Problem("", f"is {shown(value)}", "keys with values")
        for key in value:
            if not _is_text(key):
                return Problem("", f"has the key {shown(key)}", "keys of text")
        return _first((key, inner, one) for key, one in value.items())

    return Kind("keys with values", problem)


def record(keys: Mapping[str, Schema]) -> Kind:
    """An object with these keys, and maybe others."""
    kinds = {key: as_kind(schema) for key, schema in keys.items()}
    needed = ", ".join(key for key, kind in kinds.items() if kind.required)
    wanted = f"the keys {needed}" if needed else "keys with values"

    def problem(value: Any) -> Problem | None:
        if not isinstance(value, dict):
            return Problem("", f"is {shown(value)}", wanted)
        for key, kind in kinds.items():
            if kind.required and key not in value:
                return Problem(key, "is missing", kind.wanted)
        present = (key for key in kinds if key in value)
        return _first((key, kinds[key], value[key]) for key in present)

    return Kind(wanted, problem)


def either(*schemas: Schema) -> Kind:
    """A value of one of several kinds."""
    kinds = [as_kind(schema) for schema in schemas]
    wanted = " or ".join(kind.wanted for kind in kinds)

    def problem(value: Any) -> Problem | None:
        found = [kind.problem(value) for kind in kinds]
        if None in found:
            return None
        deeper = [each for each in found if each is not None and each.at]
        if len(deeper) == 1:  # the one that was meant
            return deeper[0]
        return Problem("", f"is {shown(value)}", wanted)

    return Kind(wanted, problem)


def optional(schema: Schema) -> Kind:
    """A kind whose key may be missing."""
    return as_kind(schema)._replace(required=False)


def shown(value: Any) -> str:
    """A value in a message: whole where it is short."""
    if value is None:
        return "null"
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlong = 60


def kind(wanted: str, fits: Callable[[Any], bool]) -> Kind:
    """A kind of which `fits` is known, and `wanted` in words that follow "wanted"."""

    def problem(value: Any) -> Problem | None:
        return None if fits(value) else Problem("", f"is {shown(value)}", wanted)

    return Kind(wanted, problem)


def as_kind(schema: Schema) -> Kind:
    """A schema as one kind."""
    return schema if isinstance(schema, Kind) else record(schema)


def _first(parts: Iterable[tuple[str, Kind, Any]]) -> Problem | None:
    """The first problem of several values, with the way to it."""
    for at, kind, value in parts:
        problem = kind.problem(value)
        if problem is not None:
            dot = "." if problem.at and not problem.at.startswith("[") else ""
            return problem._replace(at=f"{at}{dot}{problem.at}")
    return None


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair, as JSON can write it
        return False
    return True
