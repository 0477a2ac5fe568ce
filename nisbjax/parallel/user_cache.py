"""Folders for what this user's processes make once and take again: compiled code, choices.

The place is that of the XDG specification; PyTC and BANIS keep nothing. We differ from most
programs in looking at whose folder it is: machine code is loaded from there.
"""

import os
import pathlib
import tempfile


def folder(name: str) -> pathlib.Path:
    """A folder of mode 0700 that belongs to this user; a fresh one as the last resort.

    Args:
      name: of the folder in the user's cache of this program.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    temporary = pathlib.Path(tempfile.gettempdir()) / f"nisbjax-{os.getuid()}"
    for root in (pathlib.Path(home) / "nisbjax", temporary):
        inner = root / name
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            inner.mkdir(mode=0o700, exist_ok=True)
            facts = [path.lstat() for path in (root, inner)]
        except OSError:
            continue
        if all(f.st_uid == os.getuid() and f.st_mode & 0o022 == 0 for f in facts):
            inner.chmod(0o700)
            return inner
    return pathlib.Path(tempfile.mkdtemp(prefix="nisbjax-"))
