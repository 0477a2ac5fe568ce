"""Names of axes, in the spellings of the programs that write them, as letters x y z c t.

Text (`zyx`, `z,y,x`), lists, bytes, or objects with a name and a type; what is not understood is
refused, not guessed.
"""

import json
import re
from typing import Any

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
UNKNOWN = "?"
_LONGEST = 10_000  # text that names axes; ilastik's has some hundred letters for each


class UnclearError(Exception):
    """A word says something of the axes that is not understood; the text is the reason."""


def letters(value: Any) -> str:
    """Letters from any spelling; "" where it names nothing."""
    if isinstance(value, str):
        value = _from_text(value.strip())
    if isinstance(value, dict):
        if "axes" not in value:
            return _nothing_or_unclear(value)
        if value.get("ordering") == "F" and isinstance(value["axes"], list):
            return letters(value["axes"][::-1])  # COSEM's word for the other order
        inner = value["axes"]
        return "" if isinstance(inner, dict) else letters(inner)
    if not isinstance(value, list):
        return ""
    return "".join(map(_letter, value))


def _nothing_or_unclear(value: dict) -> str:
    if any(name.lower() in _LETTER for name in value):
        raise UnclearError("names axes in no order")
    return ""


def _from_text(text: str) -> Any:
    if len(text) > _LONGEST:
        raise UnclearError(f"is a text of {len(text)} letters")
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
        return UNKNOWN
    if not isinstance(item, str):
        raise UnclearError(f"names an axis {short(item)}")
    name = item.strip().strip("\"'").rpartition("/")[2].lower()
    name, caret, _ = name.partition(
        "^"
    )  # funlib's mark of an axis that is not of space
    if caret and name not in _LETTER:
        return "c"
    if name in _LETTER:
        return _LETTER[name]
    if _ANONYMOUS.fullmatch(name):
        return UNKNOWN
    raise UnclearError(f"names an axis {short(item)}")


def short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
