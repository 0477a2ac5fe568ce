"""Compiled code comes from a folder of this user and of this version alone."""

import os
import pathlib
import re
import shutil
import stat

import nisbjax
from nisbjax.parallel import kernel_cache


def test_compiled_code_is_kept_from_other_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    folder = kernel_cache.folder()
    assert folder.parent == tmp_path / "own" / "nisbjax"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # A folder that others may write is not taken, whoever made it.
    shared = tmp_path / "shared"
    (shared / "nisbjax").mkdir(parents=True)
    (shared / "nisbjax").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    assert shared not in kernel_cache.folder().parents
    assert os.environ["NUMBA_CACHE_DIR"]


def test_kernels_of_another_version_have_another_folder(tmp_path):
    """What numba kept of kernels that took a class since renamed ends in a traceback."""
    package = pathlib.Path(nisbjax.__file__).parent
    compiled = re.compile("^ *(import|from) numba", re.MULTILINE)
    files = (p for p in package.rglob("*.py") if compiled.search(p.read_text()))
    assert sorted(p.relative_to(package).as_posix() for p in files) == sorted(
        kernel_cache.SOURCES
    )
    copy = shutil.copytree(package, tmp_path / "nisbjax")
    assert kernel_cache.version(copy) == kernel_cache.version(package)
    with open(copy / "decode/kernels.py", "a") as file:
        file.write("\n")
    assert kernel_cache.version(copy) != kernel_cache.version(package)
