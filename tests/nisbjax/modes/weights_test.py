"""Weights of another program: imported, tested, started from, and what is refused."""

import contextlib
import json
import logging
import runpy

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint, restore
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.models.foreign import torch_import, upkern
from nisbjax.store.volume import open_image


@pytest.fixture
def state_dict(original_weights):
    """Function of (kernel, ...): size S of 2 channels, 1 input, 6 outputs."""

    def made(kernel=3, **arguments):
        return original_weights("S", kernel, 1, 6, width=2, **arguments)

    return made


def parameters(weights):
    return nnx.to_pure_dict(nnx.state(torch_import.to_model(weights)))


@pytest.fixture
def settings():
    c = runpy.run_path("configs/demo.py")["get_config"]()
    c.synth.shape = (48, 48, 48)
    c.synth.volumes = ("test/seed6",)
    c.model.channels = 2
    c.predict.window = (48, 48, 48)  # the whole volume is one window
    c.predict.format = "h5"
    c.qc.border_width = 4
    return c


def save(path, weights):
    np.savez(path, **weights)
    return str(path)


def test_imported_weights_go_straight_into_a_test(tmp_path, settings, state_dict):
    weights = state_dict()
    file = save(tmp_path / "net.npz", weights)
    run = Run(tmp_path / "run")
    launch.run_mode("synth", settings, workdir=str(run.path))
    found = launch.run_mode(
        "import", settings, workdir=str(run.path), checkpoint_path=file
    )
    assert found == run.checkpoints / "0"
    assert not run.lock.exists()
    facts = launch.run_mode("test", settings, workdir=str(run.path))
    assert facts["segmentation"].endswith("chain_0.2_0.4_nomask.zarr")
    raw = run.test(0, "seed6").raw("h5", settings.predict.channels)
    with h5py.File(raw) as prediction:
        affinities = prediction["main"][:]
    image = open_image(run.synthetic / "test/seed6/data.zarr/img").read()
    graph, state = nnx.split(torch_import.to_model(weights))
    logits = jax.jit(lambda s, x: nnx.merge(graph, s)(x))(
        state, jnp.asarray(image[None] / 255, jnp.float32)
    )
    wanted = 1 / (1 + np.exp(-0.2 * np.asarray(logits)[0]))
    # float16 rounds values below 1 by at most 2^-12.
    np.testing.assert_allclose(affinities, wanted.transpose(3, 0, 1, 2), atol=3e-4)


def test_what_a_checkpoint_says_of_its_origin(
    tmp_path, settings, monkeypatch, state_dict
):
    weights, average = state_dict(), state_dict()
    average = {name: value / 2 for name, value in average.items()}
    foreign = torch_import.Foreign(
        tmp_path / "step=00050000.ckpt",
        {"raw": tensors(weights), "ema": tensors(average)},
        50_000,
    )
    foreign.path.write_bytes(b"weights")
    monkeypatch.setattr(torch_import, "open_foreign", lambda path: foreign)
    workdir = tmp_path / "run"
    found = launch.run_mode(
        "import", settings, workdir=str(workdir), checkpoint_path=str(foreign.path)
    )
    assert found.name == "50000"
    raw = parameters(weights)
    stored = restore.restore(found, {"params": raw, "ema": raw})
    jax.tree.map(np.testing.assert_array_equal, stored["params"], raw)
    halves = jax.tree.map(lambda leaf: leaf / 2, raw)
    jax.tree.map(np.testing.assert_array_equal, stored["ema"], halves)
    facts = checkpoint.fact(found, "step")
    assert facts["step"] == 50_000
    assert facts["started_from"]["path"] == str(foreign.path)
    assert facts["started_from"]["weights"] == ["raw", "ema"]
    # sha256sum of the seven bytes.
    assert facts["started_from"]["sha256"].startswith("9a129038")
    assert checkpoint.describe(found)["channels"] == 2
    assert json.loads(Run(workdir).config.read_text())["model.channels"] == 2
    with pytest.raises(InputError, match="holds checkpoints already; name another"):
        launch.run_mode(
            "import", settings, workdir=str(workdir), checkpoint_path=str(foreign.path)
        )


def tensors(weights):
    from nisbjax.models.foreign.torch_file import Tensor

    return {name: Tensor(lambda v=value: v) for name, value in weights.items()}


def test_a_config_of_another_network_is_told_so(tmp_path, caplog, state_dict):
    file = save(tmp_path / "net.npz", state_dict(5, heads=5))
    with caplog.at_level(logging.WARNING):
        found = launch.run_mode(
            "import", base_config(), workdir=str(tmp_path / "run"), checkpoint_path=file
        )
    assert "add --config.model.size=S --config.model.channels=2" in caplog.text
    assert "--config.model.kernel_size=5" in caplog.text
    assert "--config.model.deep_supervision=True" in caplog.text
    assert checkpoint.describe(found) == {
        "size": "S",
        "kernel_size": 5,
        "in_channels": 1,
        "out_channels": 6,
        "channels": 2,
        "deep_supervision": True,
    }


def test_kernels_grow_where_the_config_asks(tmp_path, settings, state_dict):
    file = save(tmp_path / "net.npz", state_dict())
    settings.model.kernel_size = 5
    settings.model.upkern = True
    found = launch.run_mode(
        "import", settings, workdir=str(tmp_path / "run"), checkpoint_path=file
    )
    assert checkpoint.describe(found)["kernel_size"] == 5
    small, like = parameters(state_dict()), parameters(state_dict(5))
    stored = restore.restore(found, {"params": like})["params"]
    wanted = upkern.upkern(small, like)
    jax.tree.map(np.testing.assert_array_equal, stored, wanted)
    file = save(tmp_path / "large.npz", state_dict(7))
    with pytest.raises(InputError, match="model.upkern makes kernels larger only"):
        launch.run_mode(
            "import", settings, workdir=str(tmp_path / "b"), checkpoint_path=file
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("up_1.norm.bias"), r"1 missing \(up_1.norm.bias\), 0 left"),
        (lambda w: w.update(extra=np.ones(3)), r"0 missing, 1 left over \(extra\)"),
        (lambda w: w.clear(), "no MedNeXt among 0 weights"),
        (
            lambda w: w.update(
                {
                    name: value[:, :, :1]
                    for name, value in w.items()
                    if name.startswith("enc_block_0") and "conv1.weight" in name
                }
            ),
            "kernels are .*; a checkpoint has one size, 3, 5 or 7",
        ),
    ],
    ids=["missing", "left over", "nothing", "kernels"],
)
def test_files_that_are_refused(tmp_path, settings, state_dict, change, message):
    weights = state_dict()
    change(weights)
    file = save(tmp_path / "net.npz", weights)
    with pytest.raises(InputError, match=message):
        launch.run_mode(
            "import", settings, workdir=str(tmp_path / "run"), checkpoint_path=file
        )
    assert not (tmp_path / "run").exists()


def test_no_file_was_named(tmp_path, settings):
    with pytest.raises(InputError, match="--mode=import needs --checkpoint"):
        launch.run_mode("import", settings, workdir=str(tmp_path / "run"))


def test_an_average_of_another_network(tmp_path, settings, monkeypatch, state_dict):
    foreign = torch_import.Foreign(
        tmp_path / "x.ckpt",
        {"raw": tensors(state_dict()), "ema": tensors(state_dict(5))},
    )
    monkeypatch.setattr(torch_import, "open_foreign", lambda path: foreign)
    with pytest.raises(InputError, match="an average of another network"):
        launch.run_mode(
            "import", settings, workdir=str(tmp_path / "run"), checkpoint_path="x.ckpt"
        )


def test_exported_weights_are_the_averaged_ones_unless_raw_are_asked_for(
    tmp_path, settings, state_dict
):
    weights, average = state_dict(), state_dict()
    average["stem.bias"] = average["stem.bias"] + 1
    trees = [parameters(w) for w in (weights, average)]
    run = Run(tmp_path / "run")
    described = torch_import.describe(weights)
    with contextlib.closing(Checkpoints(run.checkpoints)) as kept:
        arrays = dict(zip(("params", "ema"), trees, strict=True))
        facts = {"step": {}, "loader": {}, "model": described, "config": {}}
        kept.save(20, {**arrays, "optimizer": {"w": jnp.ones(1)}}, facts)
    for which, wanted in (("ema", average), ("raw", weights)):
        settings.predict.weights = which
        path = launch.run_mode("export", settings, workdir=str(run.path))
        assert path == run.path / f"weights_step=00000020_{which}.safetensors"
        found = torch_import.read_state_dict(path)
        del found["dummy_tensor"]
        assert found.keys() == wanted.keys() - {"dummy_tensor"}
        for name, value in found.items():
            np.testing.assert_array_equal(value, wanted[name])
    # And in again, from the file alone.
    again = Run(tmp_path / "again")
    launch.run_mode("import", settings, str(again.path), str(path))
    like = build.abstract_params(described)
    back = restore.weights(again.checkpoints / "0", "raw", like)
    jax.tree.map(np.testing.assert_array_equal, back, trees[0])
    with pytest.raises(InputError, match="no checkpoint at"):
        launch.run_mode("export", settings, workdir=str(tmp_path / "none"))
