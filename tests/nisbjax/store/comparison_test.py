"""Phrases on files that are not as recorded."""

import pytest

from nisbjax.store import comparison, stored

WAS = (10, 0xAB)


@pytest.mark.parametrize(
    "name, wanted, found, phrase",
    [
        ("0.0.1", WAS, WAS, None),
        ("0.0.1", None, None, None),
        ("img/0.0.1", WAS, None, "chunk img/0.0.1 is missing"),
        ("0.0.1", WAS, (9, 0xAB), "chunk 0.0.1 is damaged (9 bytes; it had 10)"),
        (
            "skeleton.pkl",
            WAS,
            (10, 1),
            "file skeleton.pkl is damaged (its checksum is 00000001, not 000000ab)",
        ),
        (
            "1",
            None,
            WAS,
            "chunk 1 is damaged (it was never written, and a file is there)",
        ),
        ("1", WAS, stored.NO_FILE, "1 is no file, but a folder, a pipe or the like"),
    ],
)
def test_phrases(name, wanted, found, phrase):
    assert comparison.problem_of(name, wanted, found) == phrase


def test_sizes_alone_do_not_see_a_flipped_bit(tmp_path):
    (tmp_path / "0.0").write_bytes(b"ab")
    known = {"0.0": stored.of_bytes(b"ac"), "0.1": None}
    assert comparison.problems_of(tmp_path, known, known, contents=False) == {}
    found = comparison.problems_of(tmp_path, known, known, contents=True)
    assert list(found) == ["0.0"] and "its checksum is" in found["0.0"]


def test_attributes_may_be_edited_and_metadata_not(tmp_path):
    (tmp_path / ".zarray").write_text("{}")
    (tmp_path / ".zattrs").write_text("{}")
    known = comparison.metadata_of(tmp_path)
    (tmp_path / ".zattrs").write_text('{"axes": "xyz"}')
    assert comparison.metadata_problems(tmp_path, known) == {}
    (tmp_path / ".zattrs").write_text("5")
    (tmp_path / ".zarray").write_text("{ }")
    assert comparison.metadata_problems(tmp_path, known) == {
        ".zarray": "file .zarray is damaged (3 bytes; it had 2)",
        ".zattrs": "file .zattrs holds no attributes",
    }
