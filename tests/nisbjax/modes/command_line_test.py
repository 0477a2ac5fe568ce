"""Flags and configurations that cannot be used: one line each, exit status 2."""

import os

import pytest
from absl import flags
from ml_collections import config_flags

from nisbjax import launch
from nisbjax.modes import command_line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "config.py is no file; wanted one such as configs/liconn.py"),
        ("def get_config(:", "config.py, line 1: "),
        (b"# \xb5", "config.py"),
        (b"x = 1\0", "config.py"),
        ("x = 1", "get_config"),
        ("def get_config():\n    return 1/0", "division by zero"),
        ("def get_config():\n    return 5", "its get_config gives a int"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_configs_that_are_none(tmp_path, monkeypatch, capsys, content, said, joined):
    path = tmp_path / "config.py"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.setattr(command_line, "FLAGS", flags.FlagValues())
    config_flags.DEFINE_config_file("config", flag_values=command_line.FLAGS)
    given = [f"--config={path}"] if joined else ["--config", str(path)]
    with pytest.raises(SystemExit) as left:
        launch.parse_flags(["nisbjax", *given])
    assert left.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1, printed
