"""A report that says something else is never lost."""

import pytest

from nisbjax.qc import report_file
from nisbjax.qc.front_matter import FrontMatter

FRONT = FrontMatter("", "/m.h5", 3, 8, 30.0, 4)
TEXT = "\n".join([*FRONT.lines(), "", "# Report"])


@pytest.fixture
def path(tmp_path):
    report_file.write(tmp_path / "r.md", FRONT, TEXT)
    return tmp_path / "r.md"


def names(path):
    return sorted(p.name for p in path.parent.iterdir())


def test_the_same_text_is_written_once(path):
    report_file.write(path, FRONT, TEXT)
    assert names(path) == ["r.md"] and path.read_text() == TEXT


@pytest.mark.parametrize(
    "found, text",
    [
        (
            TEXT.replace("low_z: 3", "low_z: 4"),
            "r.md said another low_z; it is kept as",
        ),
        (TEXT + "\nfine\n", "r.md had another text; it is kept as r.before.md"),
        ("# Notes\n", "r.md had no front matter that could be read; it is kept as"),
    ],
)
def test_another_text_is_set_aside_and_how_it_differs(path, found, text, caplog):
    path.write_text(found)
    report_file.write(path, FRONT, TEXT)
    assert path.read_text() == TEXT
    assert path.with_name("r.before.md").read_text() == found
    assert text in caplog.text


def test_each_text_has_one_copy(path):
    for found in ("a\n", "b\n", "a\n", "c\n"):
        path.write_text(found)
        report_file.write(path, FRONT, TEXT)
    assert names(path) == ["r.before-2.md", "r.before-3.md", "r.before.md", "r.md"]
    assert path.with_name("r.before-3.md").read_text() == "c\n"
