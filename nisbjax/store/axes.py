"""The order of an array's axes, in the words of the programs that write such files.

Every program has its own word: `axes` (ours), `axis_order` (ours and PyTC's masks),
`axis_names` (funlib.persistence), `_ARRAY_DIMENSIONS` (xarray), `dimension_names` (zarr v3),
`multiscales` (OME-Zarr, in the group above), `axistags` (ilastik), `transform` (COSEM),
`DIMENSION_LABELS` (HDF5) and the series of a TIFF. One reader understands them all, and what
it does not understand it refuses: PyTC reads none of them and guesses the channel axis
from its length, so that z y x is taken for x y z without a word.
"""

import itertools
import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nisbjax.errors import InputError

WORDS = (
    "axes",
    "axis_order",
    "axis_names",
    "_ARRAY_DIMENSIONS",
    "dimension_names",
    "axistags",
    "DIMENSION_LABELS",
    "transform",
)
_LETTERS = {
    "x": ("x", "width", "column", "columns", "col"),
    "y": ("y", "height", "row", "rows"),
    "z": ("z", "depth", "plane", "planes", "slice", "slices", "pln"),
    "c": ("c", "ch", "channel", "channels", "sample", "samples"),
    "t": ("t", "time", "frame", "frames", "timepoint", "timepoints"),
}
_LETTER = {name: letter for letter, names in _LETTERS.items() for name in names}
# Names that programs give to axes that nobody named.
_ANONYMOUS = re.compile(r"(phony_)?(dim|axis|d|c|fakedim)_?\d+|unknown|")
_UNKNOWN = "?"
_UNNAMED = ("xyz", "xyzc", "cxyz")  # how arrays are read whose axes nothing names
_LONGEST = 10_000  # text that names axes; ilastik's has some hundred letters for each


def split_path(text: str) -> tuple[str, str]:
    """Separates a path from the axes that are said behind it: `em.h5/raw#zyx`.

    Returns:
      The path alone; and one letter for each axis, x y z among them, or "".
    """
    path, mark, letters = text.rpartition("#")
    said = mark and set("xyz") <= set(letters) <= set("xyzct")
    if said and len(letters) == len(set(letters)) and not os.path.lexists(text):
        return path, letters
    return text, ""


def with_axes(path: str, letters: str) -> str:
    """A path with axes said behind it, unless it says its own; "" stays as it is."""
    if not path or not letters or split_path(path)[1]:
        return path
    return f"{path}#{letters}"


_FOLDED = frozenset(word.lower() for word in WORDS)


def is_word(key: str) -> bool:
    """Whether an attribute of this name says how the axes are ordered."""
    return key.lower() in _FOLDED


class _UnclearError(Exception):
    """A word says something of the axes that is not understood; the text is the reason."""


def named_axes(
    source: str,
    shape: Sequence[int],
    attributes: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> str:
    """The letters of an array's axes, or "" where nothing names them.

    Args:
      source: path, for messages.
      shape: of the array as it is stored.
      attributes: of the array, as plain JSON values; those in `WORDS` are looked at, in
        upper and lower case.
      facts: further words with their values, from the format itself or from the groups
        above the array.

    Returns:
      One letter of x y z c t for each axis, none twice.

    Raises:
      InputError: a word that is not understood or does not fit the shape, or two words
        that contradict each other.
    """
    found: dict[str, str] = {}
    said = {key: value for key, value in attributes.items() if is_word(key)}
    for key in list(said):  # most programs mean a matrix by this one
        if key.lower() == "transform" and not isinstance(said[key], dict):
            del said[key]
    for word, value in {**said, **facts}.items():
        try:
            letters = _settled(_letters(value), len(shape))
            _require_one_each(letters, len(shape))
        except _UnclearError as problem:
            raise InputError(
                f"{source} has the attribute {word} = {_short(value)}, which {problem}; "
                f"wanted letters of x y z c t for the {len(shape)} axes of its shape "
                f"{tuple(shape)}; mend or remove the attribute"
            ) from None
        if letters:
            found[word] = letters
    for (word, first), (other, second) in itertools.combinations(found.items(), 2):
        if first != second:
            raise InputError(
                f"{source} contradicts itself: its {word} says {' '.join(first)} and its "
                f"{other} says {' '.join(second)}; mend or remove the wrong one"
            )
    return next(iter(found.values()), "")


def settled(source: str, shape: Sequence[int], named: str, said: str) -> str:
    """The axes of an array, by its own words and by what was said behind its path.

    Args:
      source: path, for messages.
      shape: of the array as it is stored.
      named: by its own words, of `named_axes`; "" where it has none.
      said: by whoever names the file; "" for nothing.

    Raises:
      InputError: they contradict each other, or another number of axes was said.
    """
    if not said or said == named:
        return named
    if len(said) != len(shape):
        raise InputError(
            f"{source} has {len(shape)} axes, shape {tuple(shape)}, and {said} was said of "
            f"it; wanted {len(shape)} letters of x y z c t"
        )
    if named:
        raise InputError(
            f"{source} says that its axes are {' '.join(named)}, and {' '.join(said)} was "
            "said of it; leave that out, or mend the file"
        )
    return said


def order(source: str, shape: Sequence[int], named: str, wanted: str) -> list[int]:
    """Which stored axis is each wanted one; stored axes that are not listed have length 1.

    Args:
      source: path, for messages.
      shape: of the array as it is stored.
      named: its axes, of `named_axes`.
      wanted: letters, in the order wanted.

    Raises:
      InputError: a wanted axis is not there, or another one is longer than 1.
    """
    surplus = {
        letter: length
        for letter, length in zip(named, shape, strict=True)
        if letter not in wanted and length > 1
    }
    if set(wanted) - set(named) or surplus:
        what = {"t": "time points", "c": "channels"}
        extra = [f"{n} {what.get(a, f'planes along {a}')}" for a, n in surplus.items()]
        held = f" with {' and '.join(extra)}" if extra else ""
        raise InputError(
            f"{source} has shape {tuple(shape)} and says that its axes are "
            f"{' '.join(named)}{held}; wanted the axes {' '.join(wanted)}; save that part "
            "as a file of its own, or mend what the file says of its axes"
        )
    return [named.index(letter) for letter in wanted]


def multiscales(attributes: Mapping[str, Any], inner: str) -> dict[str, Any]:
    """What a group of OME-Zarr (0.1 to 0.5) says of the axes of one of its arrays.

    Args:
      attributes: of the group.
      inner: path of the array from the group: `0`, or `scale0/image`.

    Returns:
      Words with their values, as facts for `named_axes`.
    """
    facts: dict[str, Any] = {}
    for image in images(attributes):
        for level in dicts(image.get("datasets")):
            path = level.get("path")
            if not isinstance(path, str) or _normal(path) != _normal(inner):
                continue
            axes = image.get("axes", level.get("transform"))
            if axes is None and image.get("version") in ("0.1", "0.2"):
                axes = "tczyx"  # by definition, until 0.3
            facts[f"multiscales{len(facts) or ''}"] = axes
    return facts


def images(attributes: Mapping[str, Any]) -> Iterator[dict]:
    """The images that a group of OME-Zarr (0.1 to 0.5) lists, each of several scales."""
    for holder in (attributes.get("ome"), attributes):
        if isinstance(holder, dict):
            yield from dicts(holder.get("multiscales"))


def dicts(value: Any) -> Iterator[dict]:
    """The objects of a list; none of anything else."""
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _normal(path: str) -> str:
    return posixpath.normpath(path.strip("/"))


def _letters(value: Any) -> str:
    """Letters from any spelling; "" where it names nothing."""
    if isinstance(value, str):
        value = _from_text(value.strip())
    if isinstance(value, dict):
        if "axes" not in value:
            return _nothing_or_unclear(value)
        if value.get("ordering") == "F" and isinstance(value["axes"], list):
            return _letters(value["axes"][::-1])  # COSEM's word for the other order
        inner = value["axes"]
        return "" if isinstance(inner, dict) else _letters(inner)
    if not isinstance(value, list):
        return ""
    return "".join(map(_letter, value))


def _settled(letters: str, rank: int) -> str:
    """The same letters, or "" where those that are named stand as if none were."""
    if _UNKNOWN not in letters:
        return letters
    usual = [axes for axes in _UNNAMED if len(axes) == rank == len(letters)]
    fits = any(
        all(a in (_UNKNOWN, b) for a, b in zip(letters, axes, strict=True))
        for axes in usual
    )
    if set(letters) & set("xyz") and not fits:
        raise _UnclearError("names some axes and leaves others open")
    return ""


def _nothing_or_unclear(value: dict) -> str:
    if any(name.lower() in _LETTER for name in value):
        raise _UnclearError("names axes in no order")
    return ""


def _from_text(text: str) -> Any:
    if len(text) > _LONGEST:
        raise _UnclearError(f"is a text of {len(text)} letters")
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # a list as Python prints it
    parts = re.split(r"[^\w^]+", text.strip("[](){}\"' "))
    if len(parts) > 1 or parts[0].lower().rstrip("^") in _LETTER:
        return parts
    return list(parts[0])


def _letter(item: Any) -> str:
    """The letter of one axis, from its name or from an object with a name and a type."""
    if isinstance(item, dict):
        kind = str(item.get("type")).lower()
        if kind in ("channel", "time"):
            return kind[0]
        item = item.get("name", item.get("key", item.get("label")))
    if item is None:
        return _UNKNOWN
    if not isinstance(item, str):
        raise _UnclearError(f"names an axis {_short(item)}")
    name = item.strip().strip("\"'").rpartition("/")[2].lower()
    name, caret, _ = name.partition(
        "^"
    )  # funlib's mark of an axis that is not of space
    if caret and name not in _LETTER:
        return "c"
    if name in _LETTER:
        return _LETTER[name]
    if _ANONYMOUS.fullmatch(name):
        return _UNKNOWN
    raise _UnclearError(f"names an axis {_short(item)}")


def _require_one_each(letters: str, rank: int) -> None:
    if letters and len(letters) != rank:
        raise _UnclearError(f"names {len(letters)} axes")
    twice = sorted({a for a in letters if letters.count(a) > 1})
    if twice:
        raise _UnclearError(f"names {' and '.join(twice)} twice")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
