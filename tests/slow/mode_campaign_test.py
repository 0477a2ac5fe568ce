"""Modes with a network, killed or stopped at file operations chosen by number."""

import pathlib
import shutil
import subprocess

import pytest
from kill_campaign import ENDS, ROOT, campaign, few_or_all, launch

pytestmark = pytest.mark.slow

TINY = pathlib.Path(__file__).with_name("tiny_config.py")


def tiny(mode, folder, *flags):
    data = f"--config.data.root={folder / 'data'}"
    return launch(mode, f"--workdir={folder}", data, *flags, config=TINY)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three steps, with its made data; nothing predicted yet."""
    folder = tmp_path_factory.mktemp("trained") / "case"
    for mode in ("synth", "train"):
        command = launch(mode, f"--workdir={folder}", config=TINY)
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("name", "kills"),
    few_or_all(
        ("synth", 1, 4),
        ("train", 2, 6),
        ("predict", 2, 5),
        ("tune-test", 2, 5),
        ("validate", 1, 3),
    ),
)
def test_killed_modes_end_as_the_undisturbed_one(
    trained, tmp_path, library, name, kills
):
    """Modes with a network, on made data: locks, journals and checkpoints among them."""
    campaign(library, *_mode(trained, tmp_path, name), kills)


@pytest.mark.parametrize(
    ("name", "count"),
    few_or_all(
        ("synth", 1, 4),
        ("train", 1, 4),
        ("predict", 1, 2),
        ("tune-test", 0, 2),
        ("validate", 0, 2),
    ),
)
def test_a_signal_ends_a_mode_in_order(trained, tmp_path, library, name, count):
    campaign(library, *_mode(trained, tmp_path, name), count, ENDS)


def _mode(trained, tmp_path, name):
    """A folder to begin with, and the command of a mode there."""
    template = tmp_path / name
    if name == "synth":
        template.mkdir()
        command = lambda folder: launch(name, f"--workdir={folder}", config=TINY)
    else:
        shutil.copytree(trained, template)
        command = lambda folder: tiny(name, folder)
    if name == "train":
        shutil.rmtree(template / "checkpoints")
        shutil.rmtree(template / "logs")
    return template, command
