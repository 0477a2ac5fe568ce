"""Where numba keeps its compiled kernels: a folder of this user alone.

numba loads what it finds in its cache as machine code, and by default caches beside the
package, which on a cluster is a shared disk. Set when `nisbjax` is imported, before any
kernel is; `NUMBA_CACHE_DIR` of the environment wins. Kernels of another version have
another folder: numba unpickles what it kept before it looks whether the source has changed,
and stops at a class that is not there any more.
"""

import hashlib
import os
import pathlib
import sys
import tempfile

SOURCES = (
    "data/labels.py",
    "decode/kernels.py",
    "infer/blend.py",
    "qc/plane_sums.py",
    "store/lzf.py",
    "store/pickle_bounds.py",
    "synth/domains.py",
    "synth/packing.py",
    "synth/painting.py",
)


def version(package: pathlib.Path) -> str:
    """Of all kernels below the package's folder."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((package / name).read_bytes())
    return digest.hexdigest()[:16]


def folder() -> pathlib.Path:
    """A folder of mode 0700 that belongs to this user; a fresh one as the last resort."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    temporary = pathlib.Path(tempfile.gettempdir()) / f"nisbjax-{os.getuid()}"
    for root in (pathlib.Path(home) / "nisbjax", temporary):
        inner = root / f"numba-{version(pathlib.Path(__file__).parents[1])}"
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


def use() -> None:
    """Names the folder to numba, loaded already or not."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    os.environ["NUMBA_CACHE_DIR"] = str(folder())
    if "numba" in sys.modules:  # it read the environment when it was imported
        sys.modules["numba"].core.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]
