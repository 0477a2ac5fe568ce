"""From affinities to neurons; compiled kernels are cached for each user alone."""

import os
import pathlib
import tempfile

from numba.core import config


def _cache_folder() -> pathlib.Path:
    """A folder of mode 0700 that belongs to this user; a fresh one as the last resort.

    numba loads what it finds there as machine code, so a folder that others can write,
    or the package's own on a shared disk, would run their code as ours.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    temporary = pathlib.Path(tempfile.gettempdir()) / f"nisbjax-{os.getuid()}"
    for root in (pathlib.Path(home) / "nisbjax", temporary):
        folder = root / "numba"
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = [path.lstat() for path in (root, folder)]
        except OSError:
            continue
        if all(f.st_uid == os.getuid() and f.st_mode & 0o022 == 0 for f in facts):
            folder.chmod(0o700)
            return folder
    return pathlib.Path(tempfile.mkdtemp(prefix="nisbjax-"))


if not os.environ.get("NUMBA_CACHE_DIR"):
    # Set on numba too: another module may have imported it before this one.
    os.environ["NUMBA_CACHE_DIR"] = str(_cache_folder())
    setattr(config, "CACHE_DIR", os.environ["NUMBA_CACHE_DIR"])  # noqa: B010
