"""Compiled code comes from a folder of this user and of these sources alone."""

import os
import stat
import time

from nisbjax.parallel import kernel_cache


def test_compiled_code_is_kept_from_other_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    folder = kernel_cache.folder()
    assert folder.parent == tmp_path / "own" / "nisbjax" / "numba"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # A folder that others may write is not taken, whoever made it.
    shared = tmp_path / "shared"
    (shared / "nisbjax").mkdir(parents=True)
    (shared / "nisbjax").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    assert shared not in kernel_cache.folder().parents
    assert os.environ["NUMBA_CACHE_DIR"]


def test_other_sources_have_another_folder(tmp_path):
    (tmp_path / "a.py").write_text("import numba")
    (tmp_path / "b.py").write_text("class Pair(NamedTuple): x: int; y: int")
    (tmp_path / "c.py").write_text("text = 1")
    before = kernel_cache.sources(tmp_path)
    (tmp_path / "c.py").write_text("text = 2")
    assert kernel_cache.sources(tmp_path) == before
    # What a.py's kernels take has changed, and a.py has not.
    (tmp_path / "b.py").write_text("class Pair(NamedTuple): y: int; x: int")
    changed = kernel_cache.sources(tmp_path)
    (tmp_path / "b.py").rename(tmp_path / "d.py")
    assert len({before, changed, kernel_cache.sources(tmp_path)}) == 3


def test_folders_of_old_versions_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = kernel_cache.folder()
    for name, days in (("old", 31), ("recent", 29)):
        (own.parent / name).mkdir()
        os.utime(own.parent / name, (time.time() - days * 86400,) * 2)
    os.utime(own, (0, 0))
    assert kernel_cache.folder() == own
    assert sorted(p.name for p in own.parent.iterdir()) == sorted([own.name, "recent"])
