"""What a training notes beside its checkpoints, and one that is over."""

import json
import logging
import os

import pytest
from small_checkpoints import SAID, small

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config, flatten
from nisbjax.errors import InputError
from nisbjax.modes import presets, train


@pytest.fixture
def trained(tmp_path):
    """A configuration of three steps, and a run that has trained them."""
    config = base_config()
    config.train.steps = 3
    run = Run(tmp_path / "run")
    checkpoints = Checkpoints(run.checkpoints)
    checkpoints.save(3, small(), {**SAID, "config": flatten(config)})
    checkpoints.wait()
    checkpoints.close()
    return config, run


def test_a_finished_training_says_so_and_opens_nothing(trained, caplog):
    config, run = trained
    with caplog.at_level(logging.INFO):
        train.run(config, run, "")  # its data are nowhere
    assert f"{run.path} is at step 3, its last: it is trained" in caplog.text
    assert not run.config.exists()


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 7), ("train.steps", 5), ("optimizer.lr", 0.5)]
)
def test_a_training_of_other_keys_is_not_finished(trained, key, value):
    config, run = trained
    assert train._is_finished(config, run)
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    assert not train._is_finished(config, run)


def test_a_checkpoint_that_is_damaged_is_not_finished(trained):
    config, run = trained
    (run.checkpoints / "3" / "SHA256SUMS").unlink()
    assert not train._is_finished(config, run)


def test_the_root_is_remembered_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = base_config()
    config.data.root = "nisb"
    train.describe_run(config, Run(tmp_path / "run"))
    monkeypatch.chdir(os.sep)
    found = presets.load(str(tmp_path / "run" / "config.json"))
    assert found.data.root == str(tmp_path / "nisb")
    assert config.data.root == "nisb"


def test_data_that_the_run_made_move_with_it(tmp_path):
    run = Run(tmp_path / "run")
    config = base_config()
    config.data.root = str(run.synthetic)
    train.describe_run(config, run)
    assert json.loads(run.config.read_text())["data.root"] == ""


def test_a_patch_that_the_network_does_not_take_is_refused_beforehand(tmp_path):
    """MedNeXt halves four times: multiples of 16."""
    config = base_config()
    config.train.cpu_hours = 1e9
    config.data.root = str(tmp_path)
    config.data.patch = (8, 16, 16)
    with pytest.raises(
        InputError, match=r"got an image of \(8, 16, 16\) voxels, wanted mu"
    ):
        launch.run_mode("train", config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())
