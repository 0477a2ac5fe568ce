"""The next command: begun as this one was, quoted, with what the run does not remember."""

import pathlib
import shlex

from nisbjax.modes import next_command
from nisbjax.modes.next_command import Start

MODULE = [".venv/bin/python", "-m", "nisbjax"]
RUN = pathlib.Path("my runs/a")


def following(arguments, keys=None, *, program=MODULE, **options):
    start = Start.of([*program, *arguments], arguments)
    return next_command.text(start, RUN, "decode", keys or {}, **options)


def test_it_begins_as_this_one_did_and_is_quoted():
    said = following(["--workdir=my runs/a", "--mode=predict"])
    assert said == f"{shlex.join(MODULE)} --mode=decode '--workdir=my runs/a'"
    assert shlex.split(said)[-1] == "--workdir=my runs/a"


def test_flags_of_the_configuration_come_along_in_both_spellings():
    given = ["--config", "own.py", "--config.decode.min_size=5", "--redo=predict"]
    given += ["--checkpoint", "a/1", "--workdir", "b", "--compilation_cache=c"]
    assert shlex.split(following(given))[5:] == [
        "--config=own.py",
        "--config.decode.min_size=5",
        "--checkpoint=a/1",
        "--compilation_cache=c",
    ]


def test_switches_have_no_value_behind_them():
    given = ["--config.predict.edge_windows", "--workdir=b", "--noconfig.ema.validate"]
    given += ["--config.decode.attract", "-0.2", "--config.model.deep_supervision=True"]
    assert shlex.split(following(given))[5:] == [
        "--config.predict.edge_windows=True",
        "--config.ema.validate=False",
        "--config.decode.attract=-0.2",
        "--config.model.deep_supervision=True",
    ]


def test_keys_of_the_next_one_replace_those_of_this_one():
    given = ["--config.predict.input=big.zarr", "--config.decode.threshold_from=0.5"]
    keys = {"predict.input": "", "decode.threshold_from": "study"}
    assert shlex.split(following(given, keys))[5:] == [
        "--config.decode.threshold_from=study"
    ]


def test_what_a_run_remembers_is_left_out():
    given = ["--config=own.py", "--config.train.steps=5", "--compilation_cache=c"]
    said = shlex.split(following(given, remembered=True))
    assert said[5:] == ["--compilation_cache=c"]


def test_a_script_is_called_by_its_name_where_the_path_finds_it(tmp_path, monkeypatch):
    script = tmp_path / "nisbjax"
    script.touch(mode=0o755)
    program = ["/usr/bin/python3", str(script)]
    assert following([], program=program).startswith(f"{script} --mode")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert following([], program=program).startswith("nisbjax --mode")
    assert following([], program=["python", "own.py"]).startswith("python own.py --m")
