"""Where a study may lie: files behind a storage, what is refused, and no password said."""

import os

import pytest

from nisbjax.errors import InputError
from nisbjax.tune import place


@pytest.mark.parametrize(
    ("storage", "file"),
    [
        ("a/study.db", "a/study.db"),
        ("sqlite:///a/study.db", "a/study.db"),
        ("sqlite+pysqlite:////tmp/study.db", "/tmp/study.db"),
        ("sqlite:///:memory:", None),
        ("mysql://user:secret@host/studies", None),
    ],
)
def test_the_file_behind_a_storage(storage, file):
    found = place.file_of(storage)
    assert (found and str(found)) == file


def test_a_journal_is_known_by_its_name(tmp_path):
    assert place.is_journal(tmp_path / "study.journal")
    assert place.is_journal(tmp_path / "study.log")
    assert not place.is_journal(tmp_path / "log.db")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "tune.storage is .*/folder, a folder; name another file"),
        ("pipe", "tune.storage is .*/pipe, a device, pipe or socket; name another"),
        ("link", "tune.storage is .*/link, a link to what is not there"),
        ("file/study.db", "no study can be kept in .*/file is no folder"),
        ("x" * 300, "no study can be kept in .*name too long"),
        ("a\0b", "with a null byte"),
    ],
)
def test_where_no_study_can_be(folder, name, message):
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=f"(?i){message}"):
        place.require_place(f"{folder}/{name}")
    assert sorted(folder.rglob("*")) == before


def test_sqlite_in_memory_is_gone_with_its_process():
    with pytest.raises(InputError, match="sqlite:///:memory:, which is no file and go"):
        place.require_place("sqlite:///:memory:")


def test_places_that_are_taken(folder):
    place.require_place(f"{folder}/new/folders/study.db")
    place.require_place(f"{folder}/file")
    place.require_place("mysql://host/studies")
    assert not (folder / "new").exists()


def test_a_password_is_not_said():
    shown = place.shown("mysql://user:secret@host/studies")
    assert shown == "mysql://user:***@host/studies"
    assert place.shown("my sql://user:secret@host") == "my sql://..."
    assert place.shown("a/study.db") == "a/study.db"
    error = ValueError("line one\nline two")
    assert str(place.damaged("mysql://user:secret@host/s", error)) == (
        "the studies of the server mysql://user:***@host/s cannot be used (line one); mend "
        "that, or name another file with --config.tune.storage=FILE"
    )
