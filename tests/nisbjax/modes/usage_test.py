"""What the command line prints when it is asked."""

import pathlib
import subprocess
import sys
import tomllib

import pytest

from nisbjax import __main__, launch
from nisbjax.errors import InputError
from nisbjax.modes import presets, usage
from nisbjax.store import software

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize("word", ["-h", "--help", "-help", "-?", "--helpfull"])
def test_help_names_modes_presets_and_sections(word):
    said = usage.asked_for(["--config=demo", word], launch.__doc__)
    for mode in (*launch.MODES, *launch.PATH_MODES, "convert", "config"):
        assert f"\n  {mode} " in said
    for name, summary in presets.summaries().items():
        assert f"\n  {name:<12} {summary}" in said and summary
    assert "\n  data augment model " in said


@pytest.mark.parametrize("words", [["--help=qc"], ["--help", "qc"], ["-h", "qc"]])
def test_help_on_a_section(words):
    assert usage.asked_for(words, "").startswith('--config.qc.input=""\n')


def test_version_and_nothing_asked():
    assert usage.asked_for(["--version"], "") == f"nisbjax {software.VERSION}"
    assert usage.asked_for(["--config=demo", "--mode=help", "--", "-h"], "") == ""
    with pytest.raises(InputError, match="there is no section 'qcc'"):
        usage.asked_for(["--help=qcc"], "")


def test_help_loads_nothing_that_takes_time():
    program = (
        "import sys; from nisbjax import launch; sys.argv[1:] = ['--help']; "
        "launch.start(); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    slow = {"jax", "tensorstore", "numba", "h5py", "optuna", "orbax", "matplotlib"}
    assert not slow & set(done.stderr.split())


def test_the_console_script_is_the_module():
    with open(ROOT / "pyproject.toml", "rb") as file:
        script = tomllib.load(file)["project"]["scripts"]["nisbjax"]
    assert script == f"{__main__.__name__}:{__main__.main.__name__}"
