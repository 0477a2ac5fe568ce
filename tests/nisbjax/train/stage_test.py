"""Training from a config: stopped and resumed, it is the run that nobody disturbed.

The network is a linear stand-in, so that compiling takes a second; tests/slow does the
same with a MedNeXt that is killed.
"""

import os
import pkgutil
import shutil
import signal
import warnings

import jax
import numpy as np
import pytest
import small_operations

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint, restore
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.models.kernels import measure, on_device
from nisbjax.models.kernels.choice import Candidate, Kernels
from nisbjax.parallel import devices
from nisbjax.store import files
from nisbjax.train import metric_writer, stage, step
from nisbjax.train.metric_writer import MetricWriter, read_history
from nisbjax.train.recipe import make_recipe, validation_loader

STEPS = 6  # of the config in conftest.py

pytestmark = pytest.mark.usefixtures("linear_network")


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
    items = [restore.weights(newest, which, like) for which in ("raw", "ema")]
    return newest.name, [np.asarray(a).tobytes() for a in jax.tree.leaves(items)]


def events(folder):
    """What TensorBoard's own reader shows of a run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing import event_accumulator

        sizes = {event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 0}
        found = event_accumulator.EventAccumulator(str(Run(folder).logs), sizes)
        return found.Reload()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
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


def test_tensorboard_shows_the_run(whole_run):
    shown = events(whole_run)
    tags = set(shown.Tags()["scalars"])
    for prefix in ("train", "val"):
        for name in ("loss", "per_channel/0", "per_channel/2", "pos_weight/1"):
            assert f"{prefix}/{name}" in tags
    assert tags >= {"train/lr", "train/grad_norm", "train/loss_scale", "val/accuracy"}
    assert tags >= {"time/step_s", "time/data_wait_s", "memory/host_gb"}
    # lr 0.1 and a cosine of 6 steps: (1 + cos(pi t / 6)) / 20 before update t + 1.
    rates = [e.value for e in shown.Scalars("train/lr")]
    want = [(1 + np.cos(np.pi * t / 6)) / 20 for t in range(6)]
    np.testing.assert_allclose(rates, want, rtol=1e-5)
    pictures = shown.Images("val/preview")
    assert [p.step for p in pictures] == [4, 6]
    # One column of input, and one each of target and prediction for three channels.
    assert pictures[0].width == 3 * 2.4 * 80 and pictures[0].height == 7.6 * 80
    lines = {x["step"]: x["train/loss"] for x in history(whole_run) if "train/lr" in x}
    losses = {e.step: e.value for e in shown.Scalars("train/loss")}
    assert losses == pytest.approx(lines)


@pytest.mark.parametrize("averaged", [True, False])
def test_validation_is_of_the_averaged_weights(config, whole_run, tmp_path, averaged):
    config.ema.validate = averaged
    folder = whole_run
    if not averaged:
        folder = tmp_path / "raw"
        stage.run(config, Run(folder))
    logged = [x["val/loss"] for x in history(folder) if "val/loss" in x]
    mesh = devices.make_mesh(config.train.mesh)
    recipe = make_recipe(config)
    evaluate = step.make_validation_step(recipe, mesh)
    like = build.initial_params({"out_channels": 3}, 0)
    losses = {}
    for which in ("ema", "raw"):
        weights = restore.weights(checkpoint.find(folder), which, like)
        found, real = [], []
        for crops in validation_loader(config, recipe.examples.crop, mesh, 4).batches():
            found.append(float(evaluate(weights, crops)[0]["loss"]))
            real.append(int(crops.real.sum()))
        losses[which] = np.average(found, weights=real)  # of 4 crops, and of 1
    assert losses["ema"] != pytest.approx(losses["raw"], rel=1e-3)
    assert logged[-1] == pytest.approx(losses["ema" if averaged else "raw"], rel=1e-6)


def test_loader_threads_change_nothing(config, whole_run, tmp_path):
    config.train.loader_threads, config.train.prefetch = 1, 1
    config.train.log_every = 0
    stage.run(config, Run(tmp_path / "one"))
    assert saved(tmp_path / "one") == saved(whole_run)
    # Nothing of training was logged, and validation all the same.
    lines = history(tmp_path / "one")
    assert [x["step"] for x in lines] == [4, 6]


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
    assert stopped.value.code == 143
    assert checkpoint.find(folder).name == "3"
    assert not (folder / "train.lock").exists()
    # Killed later on, too: the curve beyond the checkpoint and a dead owner's lock remain.
    with Run(folder).history.open("a") as file:
        file.write('{"step": 4, "train/loss": 7.0}\n{"step": 5, "t')
    (folder / "train.lock").write_text('{"host": "')
    stage.run(config, Run(folder))
    assert history(folder) == history(whole_run)
    assert saved(folder) == saved(whole_run)
    # TensorBoard shows no step twice, none is lost, and pictures are as they were.
    shown, whole = events(folder), events(whole_run)
    for tag in ("train/loss", "val/loss", "train/pos_weight/0"):
        assert [(e.step, e.value) for e in shown.Scalars(tag)] == [
            (e.step, e.value) for e in whole.Scalars(tag)
        ]
    assert [(e.step, e.encoded_image_string) for e in shown.Images("val/preview")] == [
        (e.step, e.encoded_image_string) for e in whole.Images("val/preview")
    ]

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


def test_damage_costs_the_steps_since_the_checkpoint_before(
    config, whole_run, tmp_path, caplog
):
    caplog.set_level("INFO", logger="absl")
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    path = folder / "checkpoints/6/optimizer/_METADATA"
    path.write_bytes(path.read_bytes().replace(b"mu", b"nu", 1))
    stage.run(config, Run(folder))
    assert "checkpoints/6 is damaged (optimizer/_METADATA changed" in caplog.text
    assert "going on at step 4" in caplog.text
    assert history(folder) == history(whole_run)
    assert saved(folder) == saved(whole_run)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_as_float32_does(
    config, tmp_path, one_block_network, precision
):
    config.optimizer.lr = 0.01
    lines = {}
    for name in ("fp32", precision):
        config.train.precision = name
        stage.run(config, Run(tmp_path / name))
        lines[name] = history(tmp_path / name)
    scale = 65536 if precision == "fp16" else 1
    for half, whole in zip(lines[precision], lines["fp32"], strict=True):
        if "train/loss" in half:
            assert half["train/loss_scale"] == scale and half["train/skipped"] == 0
            assert half["train/grad_norm"] == pytest.approx(
                whole["train/grad_norm"], rel=0.15
            )
        for key in ("train/loss", "val/loss"):
            if key in half:
                # 8 bits of mantissa in every activation, averaged over 768 edges.
                assert half[key] == pytest.approx(whole[key], rel=0.02)
                assert half[key] != whole[key]
    like = build.abstract_params({"out_channels": 3})
    weights = restore.weights(checkpoint.find(tmp_path / precision), "raw", like)
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {np.dtype(np.float32)}


def refuse(config, folder, message, **changes):
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        stage.run(config, Run(folder))


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"train.mesh": (("data", 2), ("space", 2))},
            "a crop of 16 planes in x or fewer is not",
        ),
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
    """And nothing is written, not even the folder."""
    refuse(config, tmp_path / "run", message, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_start_leaves_the_run_as_it_was(config, whole_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    described = []

    def start(**changes):
        config.update_from_flattened_dict(changes)
        stage.run(
            config, Run(folder), describe=lambda environment: described.append(changes)
        )

    with pytest.raises(InputError, match="seed is 7, but the run of .* began with 42"):
        start(seed=7)
    config.seed = 42
    with pytest.raises(InputError, match="run is at step 6 and train.steps is 2; ask"):
        start(**{"train.steps": 2})
    start(**{"train.steps": STEPS})  # the end is reached: nothing to do
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert described == []
    start(**{"train.steps": STEPS + 1})
    assert described == [{"train.steps": STEPS + 1}]


def test_a_run_goes_on_with_the_kernels_that_it_began_with(
    config, tmp_path, monkeypatch
):
    """A GPU is pretended; what its environment.json says is not measured again."""
    monkeypatch.setattr(on_device, "on_gpu", lambda: True)
    monkeypatch.setattr(measure, "choose", lambda *_, **given: 1 // 0)
    use = small_operations.use(
        1, 4, 4, 4, 1, power=1
    )  # each of four devices has a crop
    began = on_device.noted("auto", Kernels(((use, Candidate("pallas")),)))
    files.write_json(Run(tmp_path / "run").environment, began)
    small_operations.PALLAS.ran.clear()
    config.train.val_every, config.train.steps = 0, 1
    said = []
    stage.run(config, Run(tmp_path / "run"), describe=said.append)
    assert said == [began] and "pallas" in small_operations.PALLAS.ran


FULL = OSError(28, "No space left on device")
FULL_OF_TENSORSTORE = ValueError(
    "RESOURCE_EXHAUSTED: Error writing local file: No space left on device "
    "[os_error_code='28'] [tensorstore_spec='{}']"
)
COMMIT = "orbax.checkpoint.CheckpointManager.wait_until_finished"


@pytest.mark.parametrize(
    ("name", "count", "error", "message"),
    [
        ("builtins.open", 2, FULL, "history.jsonl could not be written"),
        (
            "tensorboardX.record_writer.RecordWriter.write",
            9,
            FULL,
            "logs could not be written",
        ),
        ("nisbjax.store.checksums.write", 1, FULL, "checkpoints/6 could not be writ"),
        (COMMIT, 1, FULL_OF_TENSORSTORE, r"checkpoints(/\d)? could not be written"),
    ],
)
def test_a_full_disk_is_one_line_and_costs_the_steps_since_the_last_checkpoint(
    config, whole_run, tmp_path, monkeypatch, name, count, error, message
):
    real = pkgutil.resolve_name(name)
    calls = iter(range(count))

    def failing(*arguments, **keywords):
        if next(calls, None) is None:
            raise error
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        if name == "builtins.open":  # of that module alone
            patch.setattr(metric_writer, "open", failing, raising=False)
        else:
            patch.setattr(name, failing)
        with pytest.raises(
            InputError, match=rf"{message}.* \(No space left on device\)"
        ) as raised:
            stage.run(config, Run(tmp_path))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "train.lock").exists()
    if name == COMMIT:
        stage.run(config, Run(tmp_path))
        assert history(tmp_path) == history(whole_run)
        assert saved(tmp_path) == saved(whole_run)
