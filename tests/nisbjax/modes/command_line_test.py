"""Flags and configurations that cannot be used: one line each, exit status 2."""

import os

import pytest
from absl import flags
from ml_collections import config_flags

from nisbjax import launch
from nisbjax.decode.methods import METHODS
from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.modes import command_line


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line with flags of its own; gives what they are and what is left."""

    def parsed(*arguments):
        found = flags.FlagValues()
        flags.DEFINE_string("workdir", "", "", flag_values=found)
        monkeypatch.setattr(command_line, "FLAGS", found)
        return found, command_line.parse_flags(["nisbjax", *arguments])

    return parsed


MISSPELT = """from nisbjax.config import base_config

def get_config():
    c = base_config()
    c.decode.thresold = 0.7
    return c
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "config.py is no file; wanted a preset such as liconn"),
        ("def get_config(:", "config.py, line 1: "),
        (b"# \xb5", "config.py"),
        (b"x = 1\0", "config.py"),
        ("x = 1", "config.py: it has no get_config()"),
        (
            "def get_config():\n    return 1/0",
            "config.py, line 2: ZeroDivisionError: division by zero; wanted",
        ),
        (
            MISSPELT,
            "line 5: thresold is no key of the configuration; did you mean decode.threshold",
        ),
        ("def get_config():\n    return 5", "its get_config gives a int"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
@pytest.mark.parametrize("joined", [True, False])
def test_configs_that_are_none(tmp_path, monkeypatch, capsys, content, said, joined):
    path = tmp_path / "config.py"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.setattr(command_line, "FLAGS", flags.FlagValues())
    given = [f"--config={path}"] if joined else ["--config", str(path)]
    with pytest.raises(SystemExit) as left:
        launch.parse_flags(["nisbjax", *given])
    assert left.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1, printed


LICONN = "--config=liconn"


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--config.data.patch=64"], "patch", (64, 64, 64)),
        (["--config.data.patch", "64"], "patch", (64, 64, 64)),
        (["-config.data.patch=(64,32,16)"], "patch", (64, 32, 16)),
        (["--config.data.long_erosion=2"], "long_erosion", (2, 2, 2)),
        (["--config.data.voxel_size_nm=9.5"], "voxel_size_nm", (9.5, 9.5, 9.5)),
        (["--config.data.offsets=((1,0,0),)"], "offsets", ((1, 0, 0),)),
        (["--noconfig.data.relabel"], "relabel", False),
    ],
)
def test_values_of_keys(parse, arguments, key, value):
    found, left = parse(LICONN, *arguments)
    assert found.config.data[key] == value and left == ["nisbjax"]
    given = config_flags.get_override_values(found["config"])
    assert given == {f"data.{key}": value}


def test_one_value_of_many_is_no_triple(parse):
    """Thresholds may be one, and three times the same channel are none."""
    found, _ = parse(
        LICONN, "--config.tune.thresholds=0.5", "--config.predict.channels=0"
    )
    assert found.config.tune.thresholds == (0.5,)
    assert found.config.predict.channels == (0,)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [LICONN, "--config.decode.thresold=1"],
            "is no key of the configuration; did you mean decode.threshold, decode.low_",
        ),
        (
            [LICONN, "--config.decode=3"],
            "decode is a section of the configuration; --h",
        ),
        (
            [LICONN, "--data.root=D"],
            "--data.root is no flag; did you mean --config.data",
        ),
        (
            [LICONN, "--threshold=1"],
            "is no flag; did you mean --config.decode.threshold",
        ),
        ([LICONN, "--workdri=D"], "--workdri is no flag; did you mean --workdir"),
        ([LICONN, "--xyzzy"], "--xyzzy is no flag; --help lists the flags"),
        (
            [LICONN, "--config.train.steps=many"],
            "base 10: 'many'; wanted a whole number, 1 or more",
        ),
        (["--config.data.root=D"], "--config.data.root is given without --config=NAME"),
        (
            ["--config=licon"],
            "no preset is called licon; did you mean liconn (there are",
        ),
        (["--config=no/such.py"], "no config file at no/such.py; wanted a preset such"),
        (["--flagfile=/no/such"], "/no/such"),
    ],
)
def test_flags_that_are_none(parse, arguments, said):
    with pytest.raises(InputError) as caught:
        parse(*arguments)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_file_of_flags(parse, tmp_path):
    (tmp_path / "flags").write_text("--config=liconn\n--config.data.patch=64\n")
    found, _ = parse(f"--flagfile={tmp_path}/flags")
    assert found.config.data.patch == (64, 64, 64)


def test_no_configuration(parse):
    found, left = parse("A.json", "B.json")
    assert found.config is None and left == ["nisbjax", "A.json", "B.json"]


@pytest.mark.parametrize(
    ("given", "ways"),
    [
        (["average"], ("average",)),
        (["('average','absorb')"], ("average", "absorb")),
        (["average", "absorb"], ("average", "absorb")),
        ([""], ()),
        (["()"], ()),
    ],
)
def test_ways_to_join_may_be_one_word_several_or_none(parse, given, ways):
    found, _ = parse(LICONN, *(f"--config.decode.joins={word}" for word in given))
    ranges.check(found.config)
    parameters = METHODS["chain"].parameters_of(found.config.decode)
    assert parameters.ways == ways
