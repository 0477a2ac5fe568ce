"""Bytes on a disk: of files, of folders, of what is sparse or not there."""

from nisbjax.store import disk_use


def test_a_folder_takes_what_its_files_take(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(bytes(range(256)) * 400)
    (tmp_path / "b" / "c").write_bytes(bytes(range(256)) * 100)
    one, other = disk_use.taken(tmp_path / "a"), disk_use.taken(tmp_path / "b")
    assert one >= 102_400 > other >= 25_600
    assert disk_use.taken(tmp_path) == one + other
    found = [(one, tmp_path / "a"), (other, tmp_path / "b")]
    assert disk_use.largest(tmp_path) == (one + other, found)
    assert disk_use.largest(tmp_path, 1) == (one + other, found[:1])


def test_holes_and_what_a_link_points_to_take_nothing(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 30)
    assert disk_use.taken(tmp_path / "sparse") < 1 << 20
    (tmp_path / "link").symlink_to("/")
    assert disk_use.taken(tmp_path / "link") < 1 << 20
    assert disk_use.taken(tmp_path / "nowhere") == 0
    assert disk_use.largest(tmp_path / "nowhere") == (0, [])
