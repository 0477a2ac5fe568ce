"""How much of a disk files take.

As `du` counts it: a sparse file takes what was written of it. PyTC and BANIS do not say that a
prediction of a cube takes a hundred gigabytes.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

_MOST = 500_000  # files that are looked at


def taken(path: str | os.PathLike[str]) -> int:
    """Bytes that a file takes, or all files below a folder; 0 where there is none.

    Links are not followed; of more than half a million files, the first count.
    """
    total = 0
    for count, entry in enumerate(_files(pathlib.Path(path))):
        if count >= _MOST:
            break
        with contextlib.suppress(OSError):  # it was just removed
            total += 512 * entry.lstat().st_blocks
    return total


def largest(
    folder: pathlib.Path, most: int = 3
) -> tuple[int, list[tuple[int, pathlib.Path]]]:
    """What a folder takes, and its entries that take most of it, the largest first."""
    with contextlib.suppress(OSError):
        found = [(taken(entry), entry) for entry in sorted(folder.iterdir())]
        found.sort(key=lambda each: -each[0])
        return sum(size for size, _ in found), found[:most]
    return 0, []


def _files(path: pathlib.Path) -> Iterator[pathlib.Path]:
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    for folder, _, names in os.walk(path):
        for name in names:
            yield pathlib.Path(folder, name)
