"""The keys that a misspelt one may have meant.

ml_collections names the nearest field of the same section and prints the whole section with
it; here every section is looked through, and one line names at most three.
"""

import difflib
from collections.abc import Iterable

from nisbjax.keys.ranges import RANGES

_MOST = 3
_ALIKE = 0.75  # share of letters in common, as difflib counts


def words(name: str, known: Iterable[str]) -> list[str]:
    """Those of the known words that are most like a name, the likest first."""
    return difflib.get_close_matches(name, list(known), _MOST, _ALIKE)


def keys(name: str) -> list[str]:
    """Keys whose whole name, or last part, is or is like that of `name`.

    Args:
      name: dotted, as `decode.thresold`; or a last part alone.
    """
    if name in RANGES:
        return [name]
    last = name.rpartition(".")[2]
    same = [key for key in RANGES if key.rpartition(".")[2] == last]
    alike = words(name, RANGES)
    if not same and not alike:
        ends = words(last, {key.rpartition(".")[2] for key in RANGES})
        alike = [key for end in ends for key in keys(end)]
    return list(dict.fromkeys([*same, *alike]))[:_MOST]


def refusal(name: str) -> str:
    """A line on a key that there is none of."""
    section = name.partition(".")[0]
    within = [key for key in RANGES if key.startswith(f"{name}.")]
    if within:
        return (
            f"{name} is a section of the configuration; --help={section} lists its keys"
        )
    found = keys(name)
    if found:
        return f"{name} is no key of the configuration; did you mean {', '.join(found)}"
    known = any(key.startswith(f"{section}.") for key in RANGES)
    where = (
        f"--help={section} lists its section" if known else "--help lists the sections"
    )
    return f"{name} is no key of the configuration; {where}"
