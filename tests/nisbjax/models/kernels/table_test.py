"""Tables of choices: what they say, and that none is believed that is not of this device."""

import json
import logging

import hypothesis
import pytest
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.models.kernels import table
from nisbjax.models.kernels.choice import Candidate, Use

FACTS = {"device": "A GPU", "jax": "1.2", "sources": "abc", "kernels": "auto"}
USE = Use(
    "convolve",
    ((2, 8, 8, 8, 4), (27, 4), ()),
    ("float16", "float32", "int32"),
    (("epsilon", 1e-5), ("strides", (1, (2, 2))), ("word", "a b=[c]"), ("x", None)),
)
CHOSEN = {
    USE: Candidate("pallas", (("TY", 4), ("TZ", -16))),
    Use("mix", ((3,),), ("float32",)): Candidate("xla"),
}


def test_a_table_is_read_as_it_was_written_one_line_for_each_use(tmp_path):
    path = tmp_path / "a" / "table.json"
    table.write(path, FACTS, CHOSEN)
    assert table.read(path, FACTS) == CHOSEN
    line = json.dumps(
        "convolve float16[2,8,8,8,4] float32[27,4] int32[] epsilon=1e-05 "
        r'strides=[1,[2,2]] word="a\u0020b=[c]" x=null'
    )
    assert f'\n  {line}: "pallas TY=4 TZ=-16",\n' in path.read_text()


_static = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
_names = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)


@hypothesis.given(
    st.lists(st.lists(st.integers(0, 999), max_size=3).map(tuple), max_size=3),
    st.dictionaries(_names, _static, max_size=3),
    st.dictionaries(_names, st.integers(), max_size=3),
)
def test_every_line_says_what_it_was_made_from(shapes, static, parameters):
    use = Use(
        "mix", tuple(shapes), ("bfloat16",) * len(shapes), tuple(sorted(static.items()))
    )
    candidate = Candidate("pallas", tuple(sorted(parameters.items())))
    assert table.parsed_use(table.use_text(use)) == use
    assert table.parsed_candidate(table.candidate_text(candidate)) == candidate


def test_there_need_be_no_table(tmp_path, caplog):
    assert table.read(tmp_path / "none.json", FACTS) == {}
    assert not caplog.messages


GOOD = table.noted(FACTS, CHOSEN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("[]", "it is no table"),
        (b"\xff\xfe\x00", "codec can't decode"),
        ({**GOOD, "device": "Another"}, "it is of device 'Another', here is 'A GPU'"),
        ({**GOOD, "sources": "abd"}, "it is of sources 'abd', here is 'abc'"),
        ({**FACTS}, "it has no choices"),
        (
            {**FACTS, "chosen": {"mix what": "xla"}},
            "'what' is no array and no argument",
        ),
        ({**FACTS, "chosen": {"mix a[1,,2]": "xla"}}, "invalid literal for int"),
        ({**FACTS, "chosen": {"mix a={": "xla"}}, "Expecting property name"),
        ({**FACTS, "chosen": {"mix a=[{}]": "xla"}}, "{} is no argument"),
        ({**FACTS, "chosen": {"mix": 7}}, "7 is no candidate"),
        ({**FACTS, "chosen": {"mix": "pallas TY=x"}}, "'pallas TY=x' is no candidate"),
    ],
)
def test_a_damaged_or_foreign_table_is_not_taken_and_one_line_says_why(
    tmp_path, caplog, content, said
):
    path = tmp_path / "table.json"
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert table.read(path, FACTS) == {}
    (line,) = caplog.messages
    assert line.startswith(f"{path} is not taken (") and said in line
    assert line.endswith("); kernels are measured again") and "\n" not in line


def test_a_table_that_cannot_be_written_is_only_told(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        table.write(tmp_path / "file" / "table.json", FACTS, CHOSEN)
        table.write(tmp_path, FACTS, CHOSEN)
    assert [m.split(" is not kept: ")[0] for m in caplog.messages] == [
        str(tmp_path / "file" / "table.json"),
        str(tmp_path),
    ]


def test_each_device_version_and_source_has_its_own_table(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = {table.cached(FACTS)}
    paths |= {table.cached(FACTS | {name: "another"}) for name in FACTS}
    assert len(paths) == 1 + len(FACTS)
    assert {path.parent for path in paths} == {tmp_path / "nisbjax" / "kernels"}
    assert table.cached(FACTS).name.startswith("A_GPU-")


def test_the_sources_of_the_kernels_are_part_of_the_facts(tmp_path, monkeypatch):
    said = table.facts("auto")
    assert said["device"] == "cpu" and said["kernels"] == "auto"
    monkeypatch.setattr(table, "_HERE", tmp_path)
    (tmp_path / "a.py").write_text("x = 1")
    found = []
    for text in ("x = 1", "x = 2"):
        (tmp_path / "a.py").write_text(text)
        table._sources.cache_clear()
        found.append(table.facts("auto")["sources"])
    table._sources.cache_clear()
    assert len({*found, said["sources"]}) == 3


def test_the_shipped_tables_are_valid_and_for_their_device_alone(tmp_path, monkeypatch):
    assert table.shipped("NVIDIA H100 80GB HBM3") is not None
    for path in table._HERE.glob("*.json"):
        device = json.loads(path.read_text())["device"]
        assert {"device", "chosen"} <= set(json.loads(path.read_text()))
        assert table.shipped(device + " PCIe") == table.shipped(device)
    assert table.shipped("cpu") == {}
    monkeypatch.setattr(table, "_HERE", tmp_path)
    made = table.noted({"device": "A GPU"}, CHOSEN)
    (tmp_path / "a.json").write_text(json.dumps(made))
    assert table.shipped("A GPU 80GB") == CHOSEN
    assert table.shipped("B GPU") == {}


def test_a_choice_of_others_is_refused():
    with pytest.raises(InputError, match="it is of jax '1.2', here is '1.3'"):
        table.of_these(GOOD, FACTS | {"jax": "1.3"})
