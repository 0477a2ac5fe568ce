"""Folders of trials: one's own, and none of the dead."""

import os
import socket
import subprocess

import pytest

from nisbjax.tune.trial_folder import trial_folder


@pytest.fixture
def dead():
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_is_gone_at_the_end_with_what_the_dead_left(tmp_path, dead):
    trials = tmp_path / "trials"
    host = socket.gethostname()
    for name in (f"{host}.{dead}", f"{host}.{os.getpid()}", str(dead)):
        (trials / name / "decoded.zarr").mkdir(parents=True)
    with trial_folder(trials) as own:
        assert not trials.exists()
        own.mkdir(parents=True)
    assert not trials.exists()


def test_folders_of_others_stay(tmp_path, dead):
    trials = tmp_path / "trials"
    kept = [f"{socket.gethostname()}.{os.getppid()}", f"elsewhere.{dead}", "notes"]
    for name in kept:
        (trials / name).mkdir(parents=True)
    with pytest.raises(KeyError), trial_folder(trials) as own:
        own.mkdir()
        raise KeyError
    assert sorted(found.name for found in trials.iterdir()) == sorted(kept)
