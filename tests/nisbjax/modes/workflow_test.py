"""Which checkpoint the modes take, and which folder training from one works in."""

import jax.numpy as jnp
import pytest

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.modes import run_folder, workflow

FACTS = {"step": {}, "loader": {}, "model": {}, "config": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with checkpoints of steps 1 and 2; a file of the second's average is cut."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder / "checkpoints", best=0, every=1)
    arrays = {name: {"w": jnp.ones(3)} for name in ("params", "ema", "optimizer")}
    for step in (1, 2):
        checkpoints.save(step, arrays, FACTS)
    checkpoints.close()
    path = folder / "checkpoints/2/ema/_METADATA"
    path.write_bytes(path.read_bytes()[:-1])
    return folder


@pytest.fixture
def settings(tmp_path):
    c = base_config()
    c.data.root = str(tmp_path / "nowhere")
    return c


@pytest.mark.parametrize(
    "mode", ["predict", "test", "tune", "tune-test", "qc", "decode", "train"]
)
def test_a_damaged_checkpoint_that_was_named_is_refused(settings, folder, mode):
    damaged = str(folder / "checkpoints" / "2")
    workdir = str(folder) if mode != "train" else ""
    with pytest.raises(InputError, match="checkpoints/2 is damaged .ema/_METADATA cha"):
        launch.run_mode(
            mode,
            settings,
            workdir,
            damaged,
            **({"reset": ["step"]} if mode == "train" else {}),
        )
    assert [p.name for p in folder.iterdir()] == ["checkpoints"]


def test_of_a_run_the_newest_sound_one_is_taken(settings, folder, caplog):
    caplog.set_level("INFO")
    found = workflow.find_checkpoint(settings, Run(folder), "")
    assert found.name == "1"
    assert workflow.find_checkpoint(settings, Run(folder), str(found)) == found
    assert caplog.messages.count(f"checkpoint {found}") == 1  # not of the one named
    assert "checkpoints/2 is damaged" in caplog.text
    settings.predict.weights = "raw"
    assert workflow.find_checkpoint(settings, Run(folder), "").name == "2"


def test_where_the_parameters_of_a_decode_come_from(settings, folder):
    def origin(method, *given, threshold_from="value"):
        settings.decode.update({"method": method, "threshold_from": threshold_from})
        return workflow.chosen_parameters(settings, Run(folder), "", given)

    assert origin("affinity_cc", "decode.repel") == ({}, "default")
    assert origin("affinity_cc", "decode.threshold") == ({}, "command line")
    assert origin("grow", "decode.min_seed") == ({}, "default")
    assert origin("chain", "decode.threshold") == ({}, "default")
    assert origin("chain", "decode.repel") == ({}, "command line")
    named = {"threshold": 0.5}, "command line"
    assert origin("chain3", threshold_from="0.5") == named
    with pytest.raises(
        InputError, match="threshold_from is 0.5, and .*=chain takes no threshold; want"
    ):
        origin("chain", threshold_from="0.5")


def test_training_from_a_checkpoint_has_a_folder(
    settings, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    one = str(folder / "checkpoints" / "1")

    def found(path, workdir="", reset=False):
        return run_folder.find_run("train", settings, workdir, path, reset).path

    assert found(one) == found(str(folder)) == folder  # goes on there, as PyTC does
    assert found(one, workdir="other").name == "other"
    new = run_folder.OUTPUTS / settings.name
    assert found(one, reset=True).parent == new
    assert found(str(tmp_path / "bare" / "7")).parent == new


def test_reset_goes_with_training(settings):
    with pytest.raises(InputError, match="--reset goes with --mode=train, not test"):
        launch.run_mode("test", settings, reset=["step"])


def test_redo_goes_with_the_stages_that_keep_what_they_made(settings):
    for mode, stages, said in (
        (
            "qc",
            ["qc"],
            "--redo goes with --mode=test or predict or decode or tune or tune-test or val",
        ),
        ("tune", ["decode"], "--redo is 'decode'; wanted one of predict, tune"),
        ("validate", ["x"], "--redo is 'x'; wanted one of predict, tune, decode"),
        ("decode", ["predict"], "--redo is 'predict'; wanted one of decode"),
        ("test", ["qc"], "--redo is 'qc'; wanted one of predict, decode"),
    ):
        with pytest.raises(InputError, match=said):
            launch.run_mode(mode, settings, redo=stages)
