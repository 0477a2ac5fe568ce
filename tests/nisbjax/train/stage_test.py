"""Training from a config: stopped and gone on with, it is the run that nobody disturbed.

The network is a linear stand-in, so that compiling takes a second; tests/slow does the
same with a MedNeXt that is killed.
"""

import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax import checkpoint
from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.train import loop, stage
from nisbjax.train.metric_writer import MetricWriter, read_history
from nisbjax.volume import create_zarr

STEPS = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two volumes of 12^3 voxels with 27 objects of 4^3 each, in NISB's layout."""
    folder = tmp_path_factory.mktemp("nisb")
    draw = np.random.default_rng(0)
    ids = np.arange(1, 28, dtype=np.uint8).reshape(3, 3, 3)
    labels = ids.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    for volume in ("train/seed0", "val/seed5"):
        for name, values in (
            ("img", draw.integers(0, 256, (12, 12, 12, 1), np.uint8)),
            ("seg", labels),
        ):
            create_zarr(
                folder / volume / "data.zarr" / name,
                shape=values.shape,
                dtype="uint8",
                chunks=(6, 6, 6, 1)[: values.ndim],
                axes="xyzc"[: values.ndim],
            ).write(..., values)
    return folder


@pytest.fixture
def config(root):
    c = base_config()
    c.data.root = str(root)
    c.data.patch = (4, 4, 4)
    c.data.offsets = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    c.data.erosion = (0, 1, 0)
    c.augment.affine = 0.0
    c.model.size = "S"
    c.model.out_channels = 3
    c.train.steps = STEPS
    c.train.batch_per_device = 1
    c.train.precision = "fp32"
    c.train.log_every = 1
    c.train.val_every = 4
    c.train.val_crops = 5
    c.ema.warmup_steps = 2
    c.optimizer.lr = 0.1
    return c


@pytest.fixture(autouse=True)
def linear_network(monkeypatch):
    def initial_params(arguments, seed):
        draw = jax.random.normal(jax.random.key(seed), (1, arguments["out_channels"]))
        ones = jnp.ones(arguments["out_channels"])
        return {"head": {"weight": draw, "bias": 0 * ones}, "norm": {"weight": ones}}

    def make_apply(arguments, dtype, *, remat):
        def apply(params, images):
            head, scale = params["head"], params["norm"]["weight"]
            logits = jnp.einsum("bxyzc,co->bxyzo", images, head["weight"] * scale[None])
            return logits + head["bias"][None, None, None, None]

        return apply

    monkeypatch.setattr(build, "initial_params", initial_params)
    monkeypatch.setattr(build, "make_apply", make_apply)


def history(folder):
    """Everything that was logged but what it took."""
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))}
        for line in read_history(Run(folder).history)
    ]


def saved(folder):
    """All arrays of the newest checkpoint, as bytes."""
    newest = checkpoint.find(folder)
    like = stage.build.initial_params({"out_channels": 3}, 0)
    items = [checkpoint.weights(newest, which, like) for which in ("raw", "ema")]
    return newest.name, [np.asarray(a).tobytes() for a in jax.tree.leaves(items)]


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "undisturbed"


@pytest.fixture
def whole_run(config, undisturbed):
    if not undisturbed.exists():
        stage.run(config, Run(undisturbed))
    return undisturbed


def test_a_run_leaves_what_the_next_stages_read(config, whole_run):
    run = Run(whole_run)
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == ["4", "6"]
    lines = history(whole_run)
    assert [x["step"] for x in lines if "train/loss" in x] == [1, 2, 3, 4, 5, 6]
    assert [x["step"] for x in lines if "val/loss" in x] == [4, 6]
    assert lines[-1]["val/loss"] < lines[-4]["val/loss"]
    facts = checkpoint.describe(checkpoint.find(whole_run))
    assert facts == build.describe(config.model.to_dict())
    assert not (whole_run / "train.lock").exists()
    assert list(run.logs.glob("events.*"))


def test_stopped_and_gone_on_with_equals_undisturbed(
    config, whole_run, tmp_path, monkeypatch
):
    folder = tmp_path / "stopped"
    write = MetricWriter.write

    def write_and_stop(self, step, scalars):
        write(self, step, scalars)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(MetricWriter, "write", write_and_stop)
        with pytest.raises(SystemExit) as stopped:
            stage.run(config, Run(folder))
    assert stopped.value.code == loop.STOPPED
    assert checkpoint.find(folder).name == "3"
    assert not (folder / "train.lock").exists()
    # Killed later on, too: the curve beyond the checkpoint and a dead owner's lock remain.
    with Run(folder).history.open("a") as file:
        file.write('{"step": 4, "train/loss": 7.0}\n{"step": 5, "t')
    (folder / "train.lock").write_text('{"host": "')
    stage.run(config, Run(folder))
    assert history(folder) == history(whole_run)
    assert saved(folder) == saved(whole_run)

    # Again from the end: nothing is trained, nothing changes.
    before = history(folder), saved(folder)
    stage.run(config, Run(folder))
    assert (history(folder), saved(folder)) == before


def test_a_longer_run_goes_on_with_the_batch_it_began_with(config, whole_run, tmp_path):
    folder = tmp_path / "longer"
    shutil.copytree(whole_run, folder)
    config.train.batch_per_device = 2  # would be 8 samples; the run began with 4
    config.train.steps = STEPS + 1
    config.schedule.steps = STEPS
    config.train.val_every = 0
    stage.run(config, Run(folder))
    lines = history(folder)
    assert lines[:-1] == history(whole_run) and lines[-1]["step"] == 7
    # The cosine has ended: nothing moves.
    assert saved(folder)[1][:2] == saved(whole_run)[1][:2]


def refuse(config, folder, message, **changes):
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        stage.run(config, Run(folder))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train.mesh": (("data", 2), ("space", 2))}, "splits crops over 2 devices"),
        ({"train.mesh": (("data", 3),)}, "wanted sizes that multiply to the number"),
        ({"train.mesh": (("data", 2),)}, "needs 2 devices; here are 4"),
        ({"data.kind": "cremi"}, "data.kind is 'cremi'; wanted one of nisb, files"),
        ({"schedule.kind": "step"}, "schedule.kind is 'step'"),
        ({"train.precision": "tf32"}, "train.precision is 'tf32'"),
        ({"loss.kind": "dice"}, "loss.kind is 'dice'"),
        (
            {"model.out_channels": 6},
            "data.offsets names 3 edges, model.out_channels is 6",
        ),
        (
            {"train.global_batch": 6},
            "the global batch is 6 on 4 devices; wanted a mult",
        ),
        (
            {"model.in_channels": 2},
            "has 1 channels, model.in_channels is 2; wanted the",
        ),
        ({"data.train.image": "train/seed9/img"}, "no volume matches .*seed9/img"),
        ({"data.val.image": "val/seed9/img"}, "no volume matches .*seed9/img"),
    ],
)
def test_keys_that_do_not_fit_are_refused(config, tmp_path, changes, message):
    refuse(config, tmp_path, message, **changes)
    assert not (tmp_path / "train.lock").exists()


def test_a_checkpoint_of_another_network_is_not_gone_on_with(
    config, whole_run, tmp_path
):
    shutil.copytree(whole_run, tmp_path / "run")
    two = {"data.offsets": ((1, 0, 0), (0, 1, 0)), "model.out_channels": 2}
    message = r"is of another model: model.out_channels 3 \(config: 2\)"
    refuse(config, tmp_path / "run", message, **two)
