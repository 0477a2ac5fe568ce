"""The order of an array's axes, in the words of the programs that write such files.

Every program has its own word: `axes` (ours), `axis_order` (ours and PyTC's masks),
`axis_names` (funlib.persistence), `_ARRAY_DIMENSIONS` (xarray), `dimension_names` (zarr v3),
`multiscales` (OME-Zarr, in the group above), `axistags` (ilastik), `transform` (COSEM),
`DIMENSION_LABELS` (HDF5) and the series of a TIFF. One reader understands them all, and what
it does not understand it refuses: PyTC reads none of them and guesses the channel axis
from its length, so that z y x is taken for x y z without a word.
"""

import itertools
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nisbjax.errors import InputError
from nisbjax.store import axis_names

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
_CHOICE = re.compile(r"[ct]=\d{1,9}")  # of a channel or a time point
_UNNAMED = ("xyz", "xyzc", "cxyz")  # how arrays are read whose axes nothing names


def split_path(text: str) -> tuple[str, str]:
    """Separates a path from what is said behind it of the array: `em.h5/raw#zyx#c=1`.

    Returns:
      The path alone; and what is said: the order of the axes, one letter for each, x y z
      among them, and numbers of a channel and a time point, `#` between them; or "".
    """
    words: list[str] = []
    rest, mark, word = text.rpartition("#")
    while mark and not os.path.lexists(text) and _is_said(word, words):
        words.insert(0, word)
        text = rest
        rest, mark, word = text.rpartition("#")
    return text, "#".join(words)


def letters_of(said: str) -> str:
    """The order of the axes, of what is said behind a path; "" where it says none."""
    return next((w for w in said.split("#") if w and "=" not in w), "")


def choices_of(said: str) -> dict[str, int]:
    """Axes of which one channel or time point is meant, and its number, from 0."""
    pairs = [word.split("=") for word in said.split("#") if "=" in word]
    return {axis: int(number) for axis, number in pairs}


def with_axes(path: str, said: str) -> str:
    """A path with that said behind it which it does not say itself; "" stays as it is."""
    if not path:
        return path
    plain, own = split_path(path)
    both = merged(own, said)
    return f"{plain}#{both}" if both else plain


def merged(own: str, said: str) -> str:
    """What is said of one file, with what is said of several where that says nothing."""
    letters = letters_of(own) or letters_of(said)
    choices = {**choices_of(said), **choices_of(own)}
    numbers = [f"{axis}={number}" for axis, number in sorted(choices.items())]
    return "#".join([letters] * bool(letters) + numbers)


def _is_said(word: str, others: list[str]) -> bool:
    """Whether what stands behind a `#` is said of an array, once."""
    if _CHOICE.fullmatch(word):
        return not any(other[0] == word[0] and "=" in other for other in others)
    is_order = set("xyz") <= set(word) <= set("xyzct") and len(word) == len(set(word))
    return is_order and all("=" in other for other in others)


_FOLDED = frozenset(word.lower() for word in WORDS)


def is_word(key: str) -> bool:
    """Whether an attribute of this name says how the axes are ordered."""
    return key.lower() in _FOLDED


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
            letters = _settled(axis_names.letters(value), len(shape))
            _require_one_each(letters, len(shape))
        except axis_names.UnclearError as problem:
            raise InputError(
                f"{source} has the attribute {word} = {axis_names.short(value)}, which {problem}; "
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
        one = "".join(f"#{axis}=0" for axis in surplus if axis in what)
        advice = "save that part as a file of its own, or"
        if one and not set(wanted) - set(named):
            advice = f"name one of them behind the path, as {source}{one}, or"
        raise InputError(
            f"{source} has shape {tuple(shape)} and says that its axes are "
            f"{' '.join(named)}{held}; wanted the axes {' '.join(wanted)}; {advice} "
            "mend what the file says of its axes"
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


def _settled(letters: str, rank: int) -> str:
    """The same letters, or "" where those that are named stand as if none were."""
    if axis_names.UNKNOWN not in letters:
        return letters
    usual = [axes for axes in _UNNAMED if len(axes) == rank == len(letters)]
    fits = any(
        all(a in (axis_names.UNKNOWN, b) for a, b in zip(letters, axes, strict=True))
        for axes in usual
    )
    if set(letters) & set("xyz") and not fits:
        raise axis_names.UnclearError("names some axes and leaves others open")
    return ""


def _require_one_each(letters: str, rank: int) -> None:
    if letters and len(letters) != rank:
        raise axis_names.UnclearError(f"names {len(letters)} axes")
    twice = sorted({a for a in letters if letters.count(a) > 1})
    if twice:
        raise axis_names.UnclearError(f"names {' and '.join(twice)} twice")
