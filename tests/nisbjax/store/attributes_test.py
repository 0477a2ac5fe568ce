"""Attributes of any type become plain JSON values."""

import os

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.store.attributes import read_json_object, tidy


def test_values_are_as_json_has_them():
    assert tidy({"a": np.float32(0.5), "b": np.array([1, 2])}) == {
        "a": 0.5,
        "b": [1, 2],
    }
    # A lone surrogate is no text that a terminal can take.
    assert tidy("a\udc80") == "a?"


def test_an_object_or_nothing(tmp_path):
    file = tmp_path / ".zattrs"
    assert read_json_object(file) is None and read_json_object(tmp_path) is None
    file.write_text('{"axes": ["x"]}')
    assert read_json_object(file) == {"axes": ["x"]}
    file.write_text("null")
    assert read_json_object(file) is None


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1]", r"\.zattrs holds a JSON list; wanted an object: \{...\}"),
        ("{", r"\.zattrs is not valid JSON: .*; mend the file, or remove it where"),
    ],
)
def test_files_that_hold_no_object(tmp_path, content, message):
    (tmp_path / ".zattrs").write_text(content)
    with pytest.raises(InputError, match=message):
        read_json_object(tmp_path / ".zattrs")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".zattrs")
    with pytest.raises(InputError, match="is a device, pipe or socket"):
        read_json_object(tmp_path / ".zattrs")
