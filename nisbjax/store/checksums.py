"""The sha256 of every file of a folder, written beside them and compared before use.

    <folder>/SHA256SUMS        as `sha256sum` writes it: `sha256sum --check SHA256SUMS`

Orbax restores arrays with flipped bits without a word, and knows nothing of a file that
another program cut short. The manifest is written when everything else is durable, so a
folder without one was never finished.
"""

import concurrent.futures
import errno
import hashlib
import pathlib
from collections.abc import Sequence

from nisbjax.store import files

NAME = "SHA256SUMS"
_THREADS = 2  # hashing releases the GIL; more threads would wait for the disk


def write(folder: pathlib.Path) -> None:
    """Writes the manifest of a folder that will not change any more.

    Raises:
      FileNotFoundError: there is no file in it, so that nobody has written it.
    """
    paths = _files(folder)
    if not paths:
        raise FileNotFoundError(
            errno.ENOENT, "no file to take a checksum of", str(folder)
        )
    lines = [
        f"{digest}  {path.relative_to(folder)}\n"
        for path, digest in zip(paths, _digests(paths), strict=True)
    ]
    files.write_text(folder / NAME, "".join(lines))


def finished(folder: pathlib.Path) -> bool:
    """Whether the folder has a manifest that says something."""
    try:
        return (folder / NAME).stat().st_size > 0
    except OSError:
        return False


def damage(folder: pathlib.Path, parts: Sequence[str] | None = None) -> list[str]:
    """What differs from the manifest; empty for a sound folder.

    Args:
      folder: with a manifest.
      parts: subfolders to look at, with the files beside them; None for all.

    Returns:
      One phrase for each file that was changed, added or removed since, and for each line
      of the manifest that is not one: `ema/d/1f3b changed`.

    Raises:
      FileNotFoundError: the folder has no manifest, or was removed meanwhile.
    """
    found = []
    wanted = {}
    for number, line in enumerate((folder / NAME).read_bytes().splitlines(), 1):
        digest, gap, name = line.decode(errors="replace").partition("  ")
        if not gap or len(digest) != 64:
            found.append(f"{NAME} line {number} changed")
        wanted[name] = digest

    def asked_for(name: str) -> bool:
        first, *below = pathlib.PurePath(name).parts or ("",)
        return parts is None or not below or first in parts

    paths = {str(path.relative_to(folder)): path for path in _files(folder)}
    here = sorted(filter(asked_for, paths))
    digests = dict(zip(here, _digests([paths[name] for name in here]), strict=True))
    for name in sorted(set(filter(asked_for, wanted)) | set(here)):
        if name not in digests:
            found.append(f"{name} missing")
        elif name not in wanted:
            found.append(f"{name} added")
        elif digests[name] != wanted[name]:
            found.append(f"{name} changed")
    return found


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        # Its own temporary file may be left by a kill.
        if path.is_file() and not (path.parent == folder and path.name.startswith(NAME))
    )


def _digests(paths: Sequence[pathlib.Path]) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
