"""Beginning from another run: what is restored, what begins again, what is refused."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint, restore
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.store import checksums
from nisbjax.train import stage
from nisbjax.train import step as steps
from nisbjax.train.agreement import Origin, TrainingPlan
from nisbjax.train.metric_writer import read_history
from nisbjax.train.recipe import make_recipe
from nisbjax.train.start import begin

pytestmark = pytest.mark.usefixtures("linear_network")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "first"


@pytest.fixture
def first(config, place):
    """A run of six steps with checkpoints of steps 2, 4 and 6."""
    config.train.val_every, config.train.ckpt_every = 0, 2
    if not place.exists():
        stage.run(config, Run(place))
    return place


@pytest.fixture
def begun(config, tmp_path):
    """What a run in a new folder begins with."""
    opened = []

    def begun_(origin=None, folder="second"):
        recipe = make_recipe(config)
        params = build.initial_params(config.model.to_dict(), config.seed)
        fresh = steps.initial_state(params, recipe.optimizer, config.train.precision)
        opened.append(Checkpoints(tmp_path / folder / "checkpoints"))
        return begin(
            TrainingPlan.of(config),
            opened[-1],
            jax.device_put(fresh, jax.devices()[0]),
            origin=origin or Origin(),
            default_batch=4,
        )

    yield begun_
    for each in opened:
        each.close()


def moments(state):
    return state.optimizer[1]


def weights_of(run, step):
    like = build.initial_params({"out_channels": 3}, 0)
    return restore.weights(run / f"checkpoints/{step}", "raw", like)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("reset", "number", "moved", "updates", "scale"),
    [
        ((), 4, True, 4, 8.0),
        (("optimizer",), 4, False, 4, 65536.0),
        (("schedule",), 4, True, 0, 8.0),
        (("step",), 0, True, 4, 8.0),
        (("optimizer", "schedule", "step"), 0, False, 0, 65536.0),
    ],
)
def test_each_word_resets_its_part(
    config, first, begun, tmp_path, reset, number, moved, updates, scale
):
    folder = tmp_path / "first"
    shutil.copytree(first, folder)
    config.train.precision = "fp16"
    config.train.batch_per_device = 1
    restate(folder / "checkpoints/4", "config", {"train.precision": "fp16"})
    if scale == 8.0:  # a scale that no beginning has: written into the checkpoint
        rescale(folder / "checkpoints/4", 8.0)
    start = begun(Origin.parse(str(folder / "checkpoints/4"), reset))
    state = start.state
    assert int(state.step) == number
    assert bool(np.any(moments(state).mu["other"])) == moved
    assert int(moments(state).count) == (4 if moved else 0)
    assert int(state.optimizer[-1].count) == updates
    assert float(state.scale.scale) == scale
    equal(state.params, weights_of(first, 4))
    assert start.facts["step"]["started_from"] == {
        "path": str(folder / "checkpoints/4"),
        "reset": list(reset),
    }


def rescale(folder, scale):
    """Writes another loss scale into a checkpoint, and seals it again."""
    with ocp.StandardCheckpointer() as files:
        item = files.restore(folder / "optimizer")
        item["scale"] = jax.tree.map(np.asarray, item["scale"])
        name = next(k for k in item["scale"] if "scale" in k)
        item["scale"][name] = np.float32(scale)
        files.save(folder / "optimizer", item, force=True)
    checksums.write(folder)


def restate(folder, name, changes):
    """Writes another fact into a checkpoint, and seals it again."""
    path = folder / name / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    checksums.write(folder)


@pytest.mark.parametrize(
    ("before", "now", "scale"),
    [
        ("fp32", "fp16", 65536.0),  # not the 1 of float32
        ("bf16", "fp16", 65536.0),
        ("fp16", "fp32", 1.0),
        ("fp16", "bf16", 1.0),
        ("fp16", "fp16", 8.0),
    ],
)
def test_the_loss_scale_is_of_the_precision(
    config, first, begun, tmp_path, before, now, scale
):
    """In the folder's own checkpoints, as `--config.train.precision` changes it."""
    folder = tmp_path / "second"
    shutil.copytree(first, folder)
    restate(folder / "checkpoints/6", "config", {"train.precision": before})
    rescale(folder / "checkpoints/6", 8.0 if before == "fp16" else 1.0)
    config.train.precision, config.train.steps = now, 7
    state = begun().state
    assert float(state.scale.scale) == scale
    assert int(state.step) == 6
    equal(state.params, weights_of(first, 6))


def swapped(lines):
    lines["other"][:2] = lines["other"][1::-1]
    return lines


def renamed(lines):
    lines["norm"] = ["scale/weight 3"]
    return lines


def longer(lines):
    lines["other"].append("tail/bias 3")
    return lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swapped, "have head/weight 1x3 where this program has head/bias 3; begin an"),
        (renamed, "have scale/weight 3 where this program has norm/weight 3; begin"),
        (longer, "have tail/bias 3 where this program has nothing; begin another"),
    ],
)
def test_moments_of_other_parameters_are_refused(
    first, begun, config, tmp_path, caplog, change, message
):
    """Both vectors have the lengths that are wanted; only the order tells."""
    caplog.set_level("INFO", logger="absl")
    config.train.steps = 8
    folder = tmp_path / "second"
    shutil.copytree(first, folder)
    found = folder / "checkpoints/6"
    lines = checkpoint.fact(found, "step")["parameters"]
    assert lines == {
        "other": ["head/bias 3", "head/weight 1x3"],
        "norm": ["norm/weight 3"],
    }
    restate(found, "step", {"parameters": change(lines)})
    with pytest.raises(InputError, match=message):
        begun()
    # The weights themselves are kept by name.
    equal(
        begun(Origin.parse(str(found), ["optimizer"]), "third").state.params,
        weights_of(first, 6),
    )
    # A checkpoint of before does not say it.
    fact = json.loads((found / "step/metadata").read_text())
    del fact["parameters"]
    (found / "step/metadata").write_text(json.dumps(fact))
    checksums.write(found)
    assert bool(np.any(moments(begun().state).mu["other"]))
    assert "does not say in which order its moments stand; its model ag" in caplog.text


def test_facts_of_other_types_are_one_line(first, begun, config, tmp_path):
    folder = tmp_path / "second"
    shutil.copytree(first, folder)
    found = folder / "checkpoints/6"
    for name, changes, message in (
        (
            "step",
            {"step": "6"},
            r"step/metadata: step is '6'; wanted a whole number,",
        ),
        ("step", {"parameters": [1]}, r"parameters is \[1\]; wanted keys with values"),
        (
            "loader",
            {"seed": None},
            "loader/metadata: seed is null; wanted a whole numb",
        ),
        ("model", {"size": 3}, "model/metadata: size is 3; wanted text; checkpoint .*"),
    ):
        before = (found / name / "metadata").read_text()
        restate(found, name, changes)
        with pytest.raises(InputError, match=message) as error:
            begun()
        assert "\n" not in str(error.value)
        (found / name / "metadata").write_text(before)


def test_fewer_steps_than_were_done_are_refused(first, begun, config, tmp_path):
    shutil.copytree(first, tmp_path / "second")
    config.train.steps = 5
    with pytest.raises(
        InputError, match="second is at step 6 and train.steps is 5; ask for more steps"
    ):
        begun()


def test_without_a_reset_a_branch_is_the_run_itself(config, first, tmp_path):
    """From step 4 on in another folder: the same crops, rates and bytes."""
    origin = Origin.parse(str(first / "checkpoints/4"), ())
    stage.run(config, Run(tmp_path / "branch"), origin=origin)
    equal(weights_of(tmp_path / "branch", 6), weights_of(first, 6))
    lines = [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))}
        for run in (first, tmp_path / "branch")
        for line in read_history(Run(run).history)
    ]
    assert lines[4:6] == lines[6:] and len(lines) == 8


def test_finetuning_begins_with_the_weights_and_is_gone_on_with(
    config, first, tmp_path, caplog
):
    caplog.set_level("INFO", logger="absl")
    config.optimizer.lr = 0.02
    config.train.batch_per_device = 2
    origin = Origin.parse(str(first), ["step", "optimizer", "schedule"])
    assert origin.reset == ("optimizer", "schedule", "step")
    second = Run(tmp_path / "second")
    config.train.steps = 2
    stage.run(config, second, origin=origin)
    rates = [line["train/lr"] for line in read_history(second.history)]
    # The cosine of 2 steps from the top: (1 + cos 0) / 2 and (1 + cos pi/2) / 2.
    np.testing.assert_allclose(rates, [0.02, 0.01], rtol=1e-6)
    newest = checkpoint.find(second.path)
    assert newest.name == "2"
    assert checkpoint.fact(newest, "loader")["global_batch"] == 8
    assert "optimizer.lr is 0.02, was 0.1 in" in caplog.text
    # The same command again, as a requeued job gives it: goes on with its own.
    config.train.steps = 3
    stage.run(config, second, origin=origin)
    assert [line["step"] for line in read_history(second.history)] == [1, 2, 3]
    facts = checkpoint.fact(checkpoint.find(second.path), "step")
    assert facts["started_from"] == origin.facts()
    # So does one that names the folder's own newest, or nothing.
    for path in (second.path, second.checkpoints / "3"):
        stage.run(config, second, origin=Origin.parse(str(path), ()))
    stage.run(config, second)
    for path, reset in (
        (first, ()),
        (first, ("step",)),
        (first / "checkpoints/6", origin.reset),
        (second.path, ("step",)),
        (second.checkpoints / "2", ()),
    ):
        with pytest.raises(
            InputError,
            match=r"has its own checkpoints, the newest 3, and was not start",
        ):
            stage.run(config, second, origin=Origin.parse(str(path), reset))


def test_a_damaged_origin_is_refused_by_name_and_passed_over_in_a_run(
    config, first, begun, tmp_path, caplog
):
    folder = tmp_path / "first"
    shutil.copytree(first, folder)
    path = folder / "checkpoints/6/ema/_METADATA"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(
        InputError, match="checkpoints/6 is damaged .ema/_METADATA chan"
    ):
        begun(Origin.parse(str(folder / "checkpoints/6"), ("step",)))
    start = begun(Origin.parse(str(folder), ()), "third")
    assert int(start.state.step) == 4
    assert "the one before it is used" in caplog.text
    assert (folder / "checkpoints/6").is_dir()  # another run's folder is left as it is


@pytest.mark.parametrize(
    ("changes", "path", "reset", "message"),
    [
        ({"seed": 7}, "4", (), "seed is 7, but the run of .* began with 42 and its cr"),
        (
            {"train.accumulate": 2},
            "4",
            (),
            "train.accumulate is 2, but .* began with 1",
        ),
        ({"train.global_batch": 8}, "4", (), "global_batch is 8, but .* began with 4"),
        (
            {},
            "6",
            (),
            "is at step 6 and train.steps is 6; ask for more steps, or --res",
        ),
        (
            {},
            "6",
            ("step",),
            "schedule of .* is over .update 6 of schedule.steps 6.; a",
        ),
        ({}, "5", (), "no checkpoint at .*checkpoints/5"),
    ],
)
def test_what_does_not_fit_is_refused(
    config, first, begun, changes, path, reset, message
):
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        begun(Origin.parse(str(first / "checkpoints" / path), reset))
