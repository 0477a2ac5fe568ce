"""What a manifest says, line by line."""

import pytest

from nisbjax.errors import InputError
from nisbjax.store import manifest_lines

FIRST = b'{"fingerprint": {"image": "a1"}}\n'


def after(*lines):
    state = manifest_lines.State()
    for line in lines:
        state.take(line)
    return state


def part(key, **files):
    return {"key": key, "files": files, "planes": 3}


def test_parts_name_their_files_once():
    state = after(part("a", x=[5, 1], y=None), part("b", x=[6, 2]))
    assert state.parts == {
        "a": {"key": "a", "planes": 3},
        "b": {"key": "b", "planes": 3},
    }
    assert state.files == {"x": (6, 2), "y": None}  # as the last one says
    assert state.finish is None


def test_a_forgotten_part_takes_the_finish_with_it():
    done = {"finished": {"voxels": 8}, "parts": 2, "metadata": {".zarray": [9, 3]}}
    state = after(part("a", x=[5, 1]), part("b", y=[6, 2]), done)
    assert state.finish == {"voxels": 8} and state.metadata == {".zarray": (9, 3)}
    state.take({"forgotten": ["a", "never there"]})
    assert list(state.parts) == ["b"] and state.files == {"y": (6, 2)}
    assert state.finish is None and state.metadata == {}


def test_a_file_that_another_part_names_stays():
    state = after(part("a", x=[5, 1]), part("b", x=[5, 1]), {"forgotten": ["a"]})
    assert state.files == {"x": (5, 1)}


@pytest.mark.parametrize("parts, finish", [(1, {}), (0, None), (2, None), (None, None)])
def test_a_finish_is_believed_with_all_of_its_parts(parts, finish):
    assert after(part("a"), {"finished": {}, "parts": parts}).finish == finish


def test_the_last_note_counts():
    state = after({"note": "grid", "box": 1}, {"note": "grid", "box": 2})
    assert state.notes == {"grid": {"note": "grid", "box": 2}}


@pytest.mark.parametrize("torn", [b"", b'{"key": "a', b'{"key": "a"}'])
def test_whole_lines_and_their_length(tmp_path, torn):
    manifest_lines.path_inside(tmp_path).write_bytes(FIRST + torn)
    lines, length = manifest_lines.read(tmp_path)
    assert lines == [{"fingerprint": {"image": "a1"}}] and length == len(FIRST)


def test_no_manifest_and_an_empty_one(tmp_path):
    assert manifest_lines.read(tmp_path) == ([], 0)
    assert manifest_lines.state_of(tmp_path) is None
    manifest_lines.path_inside(tmp_path).write_bytes(b"")
    state = manifest_lines.state_of(tmp_path)
    assert (
        state is not None and state.finish is None
    )  # unfinished, not another program's


@pytest.mark.parametrize(
    "content, message",
    [
        (b"5\n" + FIRST, "line 1"),
        (FIRST + b"null\n{}\n", "line 2"),
        (b'{"key": "a"}\n', "line 1.*fingerprint"),
        (FIRST + b'{"key": "a", "files": {"x": [1]}}\n' + FIRST, "line 2"),
    ],
)
def test_other_lines_are_refused_by_number(tmp_path, content, message):
    manifest_lines.path_inside(tmp_path).write_bytes(content)
    with pytest.raises(InputError, match=message):
        manifest_lines.read(tmp_path)
