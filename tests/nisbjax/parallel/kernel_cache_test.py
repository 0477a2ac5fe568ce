"""Compiled code comes from a folder of this user alone."""

import os
import stat

from nisbjax.parallel import kernel_cache


def test_compiled_code_is_kept_from_other_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    folder = kernel_cache.folder()
    assert folder == tmp_path / "own" / "nisbjax" / "numba"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # A folder that others may write is not taken, whoever made it.
    shared = tmp_path / "shared"
    (shared / "nisbjax").mkdir(parents=True)
    (shared / "nisbjax").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
    assert shared not in kernel_cache.folder().parents
    assert os.environ["NUMBA_CACHE_DIR"]
