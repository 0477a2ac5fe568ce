"""What the keys hold that are made of parts: offsets of edges, a device mesh, a search space.

PyTC describes these by nested sections of its YAML, each a dataclass; here they are short
tuples, which a flag can give whole, so that their form has to be looked at.
"""

from collections.abc import Mapping
from typing import Any

from nisbjax.errors import InputError
from nisbjax.keys.checks import LARGEST, NONE_WORDS, several, triple, whole
from nisbjax.store.label_offset import CENTRE, parse
from nisbjax.store.schema import Kind, Problem, either, kind, number, one_of, shown
from nisbjax.store.unlabeled import parse_codes

_SIZE = whole(-1)
_STEP = triple(whole(-LARGEST))
_END = number()


def offsets() -> Kind:
    """Of affinities: which voxel each channel's edge leads to."""
    return several(
        kind(
            "three whole numbers x y z that are not all 0",
            lambda value: _STEP.holds(value) and any(value),
        )
    )


def unlabeled() -> Kind:
    """Label values, as text."""

    def holds(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            parse_codes(value)
        except InputError:
            return False
        return True

    return kind('default, or whole numbers as in 0,65535, or ""', holds)


def percentiles() -> Kind:
    """Of the grey values that become 0 and 1."""
    end = number(0.0, 100.0)
    return kind(
        "two numbers in [0, 100], the lower one first",
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(map(end.holds, value))
            and value[0] < value[1]
        ),
    )


def label_offset() -> Kind:
    """Where labels of a part of an image begin."""

    def holds(value: Any) -> bool:
        try:
            return isinstance(value, str) and (value in NONE_WORDS or _place(value))
        except (InputError, ValueError):
            return False

    return kind('x,y,z in voxels of the image, centre, or ""', holds)


def _place(text: str) -> bool:
    return text == CENTRE or min(parse(text) or (0,)) >= 0


def grey_range() -> Kind:
    """Grey values that become 0 and 1."""
    return kind(
        "two different numbers, the darkest grey value first",
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(map(_END.holds, value))
            and value[0] < value[1]
        ),
    )


def recomputed() -> Kind:
    """What is computed again: a word, or the True or False of older configurations."""
    words = one_of("block", "expansion", "none")
    return kind(
        f"{words.wanted} (True and False of older configurations are block and none)",
        either(words, one_of(True, False)).holds,
    )


def mesh() -> Kind:
    """(axis, devices) for the axis `data` and, where crops are split, `space`."""
    return kind(
        "pairs such as (('data', -1), ('space', 1)): the axis data, no axis twice, sizes "
        "of 1 or more, at most one of them -1",
        _is_mesh,
    )


def space() -> Kind:
    """Keys of `decode` that a study varies, and their ends."""
    form = "(name, low, high) or (name, low, high, how many), low at most high"
    return several(kind(form, _is_range), least=0)


def sources(keys: Mapping[str, Kind]) -> Kind:
    """Sources of training data.

    Args:
      keys: that each of them may say, with what they hold; image and label it must.
    """
    wanted = (
        '() or sources such as ("liconn", ("image", FILE), ("label", FILE), ("weight", 2.0))'
        ", whose names are words, none twice"
    )

    def problem(value: Any) -> Problem | None:
        if not isinstance(value, tuple | list) or not all(map(_is_source, value)):
            return Problem("", f"is {shown(value)}", wanted)
        names = [each[0] for each in value]
        if len(set(names)) < len(names):
            return Problem("", f"has the names {', '.join(names)}", wanted)
        for name, *said in value:
            own = {key: each for key, each in said}
            for key, each in own.items():
                if key not in keys:
                    known = f"one of {', '.join(keys)}"
                    return Problem(name, f"has the key {shown(key)}", known)
                found = keys[key].problem(each)
                if found is not None:
                    at = f"{name}.{key}"
                    return Problem(at, f"is {shown(each)}", keys[key].wanted)
            for key in ("image", "label"):
                if not own.get(key):
                    return Problem(
                        name, f"has no {key}", "image and label of each source"
                    )
        return None

    return Kind(wanted, problem)


def _is_source(value: Any) -> bool:
    if not isinstance(value, tuple | list) or not value:
        return False
    name, *said = value
    pairs = [each for each in said if isinstance(each, tuple | list) and len(each) == 2]
    if len(pairs) < len(said) or not all(isinstance(key, str) for key, _ in pairs):
        return False
    if not isinstance(name, str) or not name.isidentifier():
        return False
    return len({key for key, _ in pairs}) == len(pairs)


def _is_mesh(value: Any) -> bool:
    if not isinstance(value, tuple | list):
        return False
    if not all(isinstance(axis, tuple | list) and len(axis) == 2 for axis in value):
        return False
    names, sizes = [axis[0] for axis in value], [axis[1] for axis in value]
    if names not in (["data"], ["data", "space"], ["space", "data"]):
        return False
    if not all(_SIZE.holds(size) and size != 0 for size in sizes):
        return False
    return sizes.count(-1) <= 1


def _is_range(value: Any) -> bool:
    if not isinstance(value, tuple | list) or len(value) not in (3, 4):
        return False
    key, low, high, *count = value
    if not isinstance(key, str) or not _END.holds(low) or not _END.holds(high):
        return False
    return low <= high and all(whole(1).holds(times) for times in count)
