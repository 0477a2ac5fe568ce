"""What a fingerprint is of, by a number in front of it: those of two numbers say nothing.

`2:<sha256>` is of what determines a volume's voxels and how they are read; one without a number
(version 1) was of its metadata's bytes, and so of words that anybody may add to them.
"""

import re
from typing import Any

VERSION = 2
_NUMBERED = re.compile(r"(?:(\d+):)?[0-9a-f]{64}(?: \[.*\])?")  # of a part: its box


def numbered(digest: str) -> str:
    """A digest with the number of how it was made."""
    return f"{VERSION}:{digest}"


def is_earlier(known: Any) -> bool:
    """Whether a value is a fingerprint that was made in an earlier way."""
    found = _NUMBERED.fullmatch(known) if isinstance(known, str) else None
    return found is not None and int(found[1] or 1) < VERSION


def difference(known: str, now: str) -> str:
    """What to say of a file that is known by another fingerprint; "" where it is the same."""
    if known == now:
        return ""
    if is_earlier(known):
        return (
            f"is known by a fingerprint of a version before {VERSION}, which cannot be "
            "compared"
        )
    return "has changed"
