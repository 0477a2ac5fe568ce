"""Phrases on files that are not as recorded."""

import json

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


def test_words_may_be_added_and_ours_not_be_changed(tmp_path):
    """People name meshes and colours in metadata, and other programs add scales."""
    scale = {"key": "8_8_8", "size": [4, 4, 4]}
    said = {"type": "image", "scales": [scale], "attributes": {"axes": "xyz"}}
    (tmp_path / "info").write_text(json.dumps(said))
    (tmp_path / ".zattrs").write_text("{}")
    (tmp_path / ".zarray").write_text("no JSON")
    known = comparison.metadata_of(tmp_path)
    assert known["info"] == {"type": "image", "scales": [scale]}
    more = {**said, "mesh": "mesh", "scales": [scale, {"key": "16_16_16"}]}
    (tmp_path / "info").write_text(json.dumps(more | {"attributes": {}}))
    (tmp_path / ".zattrs").write_text('{"omero": {}}')
    assert comparison.metadata_problems(tmp_path, known) == {}
    other = {**more, "scales": [{**scale, "size": [4, 4, 8]}]}
    (tmp_path / "info").write_text(json.dumps(other))
    (tmp_path / ".zattrs").write_text("5")
    (tmp_path / ".zarray").write_text("none")
    assert comparison.metadata_problems(tmp_path, known) == {
        "info": "file info is damaged (scales.size is not as it was)",
        ".zattrs": "file .zattrs holds no attributes",
        ".zarray": "file .zarray is damaged (4 bytes; it had 7)",
    }
    comparison.mend_metadata(tmp_path, "info", known["info"])
    mended = json.loads((tmp_path / "info").read_text())
    assert mended == {**said, "mesh": "mesh"}
