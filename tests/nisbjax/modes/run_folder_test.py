"""The folder of a mode that names none."""

import pathlib

import pytest

from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.modes import run_folder


@pytest.fixture
def settings():
    config = base_config()
    config.name = "demo"
    return config


def test_a_new_run_even_inside_another_programs(tmp_path, settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "theirs" / "checkpoints" / "last.npz"
    run = run_folder.find_run("import", settings, "", str(file))
    assert run.path.parts[:2] == ("outputs", "demo")
    assert run.path.name.startswith("imported_")


def test_the_named_folder_the_inputs_or_the_checkpoints(
    settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "theirs"
    (run / "checkpoints" / "7").mkdir(parents=True)
    step = str(run / "checkpoints" / "7")
    assert run_folder.find_run("decode", settings, "mine", step) == Run(
        pathlib.Path("mine")
    )
    assert run_folder.find_run("predict", settings, "", step) == Run(run)
    # A file of any program is worked on where it lies; a dataset may follow its name.
    (tmp_path / "raw.h5").touch()
    settings.decode.input = str(tmp_path / "raw.h5" / "main")
    assert run_folder.find_run("decode", settings, "", "") == Run(tmp_path)


def test_a_mode_that_needs_a_run_and_finds_none(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--workdir"):
        run_folder.find_run("test", settings, "", "")
