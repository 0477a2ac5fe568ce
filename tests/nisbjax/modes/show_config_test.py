"""The configuration as a run would have it."""

import pytest

from nisbjax.errors import InputError
from nisbjax.modes import presets, show_config


def test_every_key_and_what_differs(capsys):
    config = presets.load("fib25")
    config.decode.threshold = 0.6
    show_config.run(config, "fib25")
    whole, preset, base = capsys.readouterr().out.split("\n\n")
    assert "decode.threshold = 0.6\n" in whole and 'data.root = ""\n' in whole
    assert preset == "differs from fib25:\n  decode.threshold: 0.75 -> 0.6"
    assert base.startswith("differs from nisbjax/config.py:\n  name: ")
    assert "  decode.threshold: 0.75 -> 0.6\n" in base
    assert "  data.patch: (128,128,128) -> (64,64,64)\n" in base


def test_nothing_differs(capsys):
    show_config.run(presets.load("common"), "common")
    assert "\n\nnothing differs from common\n" in capsys.readouterr().out


def test_values_are_checked():
    config = presets.load("demo")
    config.decode.threshold = 7.0
    with pytest.raises(InputError, match="decode.threshold is 7.0; wanted a number in"):
        show_config.run(config, "demo")
