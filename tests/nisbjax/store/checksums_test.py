"""A folder is as it was written, or what differs is named."""

import hashlib
import shutil
import subprocess

import pytest

from nisbjax.store import checksums


@pytest.fixture
def folder(tmp_path):
    """Two files in two parts, one beside them."""
    for name, content in (("a/x/one", b"1"), ("b/two", b""), ("top", b"333")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert not checksums.finished(tmp_path)
    checksums.write(tmp_path)
    return tmp_path


def test_the_manifest_is_sha256sums_own(folder):
    assert checksums.finished(folder) and checksums.damage(folder) == []
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert lines[0] == hashlib.sha256(b"1").hexdigest() + "  a/x/one"
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_what_changed_came_or_went_is_named(folder):
    (folder / "a/x/one").write_bytes(b"2")
    (folder / "b/two").unlink()
    (folder / "b/three").write_bytes(b"")
    assert checksums.damage(folder) == [
        "a/x/one changed",
        "b/three added",
        "b/two missing",
    ]
    assert checksums.damage(folder, ["b"]) == ["b/three added", "b/two missing"]
    (folder / "top").write_bytes(b"332")  # beside the parts: always looked at
    assert checksums.damage(folder, ["none"]) == ["top changed"]


@pytest.mark.parametrize("place", range(0, 80, 7))
def test_a_manifest_that_changed_is_found(folder, place):
    path = folder / "SHA256SUMS"
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)
    assert checksums.damage(folder)


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(FileNotFoundError):
        checksums.damage(tmp_path)


def test_an_empty_folder_is_not_finished(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file to take a checksum of"):
        checksums.write(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / checksums.NAME).write_bytes(b"")
    assert not checksums.finished(tmp_path)
