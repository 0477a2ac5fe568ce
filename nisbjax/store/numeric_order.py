"""The order of names with numbers in them: seed2 before seed10.

BANIS and PyTC sort as text, which puts seed10 first.
"""

import re


def key(name: str) -> list[tuple[bool, int, str]]:
    """What `sorted` is to compare of a name: numbers by value, the rest as text.

    Two numbers of one value and other zeros (`1`, `01`) are told apart last.
    """
    pieces = re.split(r"(\d+)", name)
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in pieces]
