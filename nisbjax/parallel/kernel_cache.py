"""Where numba keeps its compiled kernels: a folder of this user and these sources alone.

numba loads what it finds in its cache as machine code, and by default caches beside the
package, which on a cluster is a shared disk. It compares a kernel's own file only: after an
update its index may name a tuple's class that is gone (an AttributeError), or one whose
fields have changed places. Set when `nisbjax` is imported, before any kernel is;
`NUMBA_CACHE_DIR` of the environment wins.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
import time

from nisbjax.parallel import user_cache

_KEPT_S = 30 * 86400  # of other versions, after their last use


def sources(package: pathlib.Path) -> str:
    """A word for the modules that hold kernels, or the tuples that kernels take."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        text = path.read_bytes()
        if b"numba" in text or b"NamedTuple" in text:
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + text)
    return digest.hexdigest()[:16]


def folder() -> pathlib.Path:
    """The folder of these sources in the user's cache."""
    return _of_these_sources(user_cache.folder("numba"))


def _of_these_sources(every: pathlib.Path) -> pathlib.Path:
    """Its folder for the package as it is; those not used for a month are removed."""
    own = every / sources(pathlib.Path(__file__).parents[1])
    with contextlib.suppress(OSError):  # a full or read-only disk: numba does without
        own.mkdir(mode=0o700, exist_ok=True)
        os.utime(own)
        for other in every.iterdir():
            if time.time() - other.stat().st_mtime > _KEPT_S:
                shutil.rmtree(other, ignore_errors=True)
    return own


def use() -> None:
    """Names the folder to numba, loaded already or not."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    os.environ["NUMBA_CACHE_DIR"] = str(folder())
    if "numba" in sys.modules:  # it read the environment when it was imported
        sys.modules["numba"].core.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]
