"""Small files with anything in them: what the schema wants, or one line."""

import json
import math
import os
import socket

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.store import records
from nisbjax.store.schema import (
    boolean,
    either,
    list_of,
    nothing,
    number,
    one_of,
    optional,
    record,
    table_of,
    text,
    whole,
)

SCHEMA = {
    "step": whole(),
    "threshold": number(0, 1),
    "method": one_of("cc", "grow"),
    "box": list_of(whole(), 3),
    "scores": table_of(number()),
    "done": optional(boolean()),
    "origin": optional(either(nothing(), text())),
    "inner": optional({"name": text()}),
}
GOOD = {
    "step": 3,
    "threshold": 0.5,
    "method": "cc",
    "box": [1, 2, 3],
    "scores": {"nerl": 1},
    "added later": [None],
}


def read(tmp_path, content, schema=SCHEMA, reader=records.read_json, **bounds):
    path = tmp_path / "facts.json"
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    return reader(path, schema, "run it again", **bounds)


def test_what_the_schema_wants_is_returned_whole(tmp_path):
    assert read(tmp_path, json.dumps(GOOD)) == GOOD
    assert read(tmp_path, yaml.safe_dump(GOOD), reader=records.read_yaml) == GOOD


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("step", "x", "step is 'x'; wanted a whole number, 0 or more"),
        ("step", True, "step is True; wanted a whole number"),
        ("step", 1.0, "step is 1.0; wanted a whole number"),
        ("step", None, "step is null; wanted a whole number"),
        ("step", 2**63, "wanted a whole number"),
        ("threshold", 1.5, "threshold is 1.5; wanted a number in [0, 1]"),
        ("threshold", math.nan, "threshold is nan; wanted a number in [0, 1]"),
        ("threshold", "0.5", "threshold is '0.5'; wanted a number in [0, 1]"),
        ("method", "mutex", "method is 'mutex'; wanted one of cc, grow"),
        ("box", [1, 2], "box is [1, 2]; wanted a list (3 of a whole number"),
        ("box", [1, 2, "z"], "box[2] is 'z'; wanted a whole number"),
        ("scores", {"nerl": []}, "scores.nerl is []; wanted a finite number"),
        ("scores", 5, "scores is 5; wanted keys with values"),
        ("done", 1, "done is 1; wanted true or false"),
        ("origin", 1, "origin is 1; wanted null or text"),
        ("inner", {}, "inner.name is missing; wanted text"),
        ("inner", {"name": "\ud800"}, "inner.name is '\\ud800'; wanted text"),
    ],
)
def test_another_value_is_named_with_its_key(tmp_path, key, value, said):
    with pytest.raises(InputError) as error:
        read(tmp_path, json.dumps(GOOD | {key: value}))
    assert said in str(error.value)
    assert str(tmp_path / "facts.json") in str(error.value)
    assert str(error.value).endswith("; run it again")


def test_a_key_that_is_missing(tmp_path):
    lacking = {key: value for key, value in GOOD.items() if key != "step"}
    with pytest.raises(InputError, match="step is missing; wanted a whole number"):
        read(tmp_path, json.dumps(lacking))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not valid JSON"),
        ("5", r"facts.json is 5; wanted the keys step, threshold"),
        ("null", "facts.json is null; wanted the keys"),
        ("{", "is not valid JSON"),
        ('{"a": 1, "a": 2}', "'a' is there a second time"),
        ("9" * 5000, "is not valid JSON"),
        ("[" * 100_000, "levels deep"),
        ("[" * 40 + "]" * 40, "is nested more than 32 levels deep"),
        (b'{"step": "\xb5"}', "is not UTF-8"),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b"\0" * 10, "is not valid JSON"),
    ],
)
def test_what_is_no_json(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: &x 1\nb: *x", r"line 2: an alias \(\*name\)"),
        ("a: 1\na: 2", "line 2: 'a' is there a second time"),
        ("? [a]\n: 1", "a key that is no text or number"),
        ("a: !!python/object:os.system 1", "could not determine a constructor"),
        ("a: 2001-99-99", "cannot be read .'month must be"),
        ("a: " + "1:" * 200 + "1", "a number of too many digits"),
        ("a: " + "[" * 50_000, "levels deep"),
        ("a: " + "[" * 40 + "]" * 40, "levels deep"),
        ("a: {b", "line 1: "),
        ("a: \0", "line 1: special characters are not allowed"),
        (b"a: \xb5", "is not UTF-8"),
        ("- 1", r"facts.json is \[1\]; wanted the keys"),
        ("", "facts.json is null; wanted the keys"),
    ],
)
def test_what_is_no_plain_yaml(tmp_path, content, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, content, reader=records.read_yaml)


def test_lines_and_the_one_that_a_kill_cut(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    schema = {"step": whole()}
    # 12 bytes a line
    assert records.read_json_lines(path, schema) == ([{"step": 1}, {"step": 2}], 24)
    for line in ("5", "null", "", "{"):
        path.write_text(f'{{"step": 1}}\n{line}\n')
        with pytest.raises(InputError, match=r"lines.jsonl, line 2"):
            records.read_json_lines(path, schema)
    path.write_text("")
    assert records.read_json_lines(path, schema) == ([], 0)


@pytest.mark.parametrize(
    "reader", [records.read_json, records.read_json_lines, records.read_yaml]
)
def test_what_is_no_file_is_not_waited_for(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(
                InputError,
                match=f"{name} is a device, pipe or socket; wanted a file; x",
            ):
                reader(tmp_path / name, SCHEMA, "x")
    with pytest.raises(InputError, match="folder is a folder; wanted a file"):
        reader(tmp_path / "folder", SCHEMA)
    with pytest.raises(InputError, match="there is no file .*missing; run it"):
        reader(tmp_path / "missing", SCHEMA, "run it")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="loop cannot be read"):
        reader(tmp_path / "loop", SCHEMA)
    (tmp_path / "large").write_bytes(b" " * 11)
    with pytest.raises(InputError, match="large has more than 10 bytes"):
        reader(tmp_path / "large", SCHEMA, most_bytes=10)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SCHEMA, "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(values, st.sampled_from([*SCHEMA]))
def test_any_value_is_taken_or_named_in_one_line(value, key):
    kind = record({key: SCHEMA[key]})
    try:
        records.check({key: value}, kind, "x.json")
    except InputError as error:
        assert f"x.json: {key}" in str(error)
        assert len(str(error)) < 500
    else:
        assert kind.problem({key: value}) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_named(content):
    for parse in (
        lambda: records.parse_json(content, SCHEMA, "x"),
        lambda: records.parse_yaml(content.decode("latin-1"), "x"),
    ):
        try:
            parse()
        except InputError as error:
            assert str(error).startswith("x")
