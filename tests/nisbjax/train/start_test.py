"""Beginning from another run: what is restored, what begins anew, what is refused."""

import shutil

import jax
import numpy as np
import pytest

from nisbjax import checkpoint
from nisbjax.artifacts import Run
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.train import stage
from nisbjax.train import step as steps
from nisbjax.train.metric_writer import read_history
from nisbjax.train.recipe import make_recipe
from nisbjax.train.start import Origin, begin

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
            config,
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
    return checkpoint.weights(run / f"checkpoints/{step}", "raw", like)


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
    import orbax.checkpoint as ocp

    from nisbjax.store import checksums

    with ocp.StandardCheckpointer() as files:
        item = files.restore(folder / "optimizer")
        item["scale"] = jax.tree.map(np.asarray, item["scale"])
        name = next(k for k in item["scale"] if "scale" in k)
        item["scale"][name] = np.float32(scale)
        files.save(folder / "optimizer", item, force=True)
    checksums.write(folder)


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


def test_words_of_reset():
    with pytest.raises(
        InputError,
        match="--reset names 'epoch'; wanted some of optimizer, schedule, step",
    ):
        Origin.parse("run", ["step", "epoch"])
    with pytest.raises(
        InputError, match="--reset goes with --checkpoint, the one to st"
    ):
        Origin.parse("", ["step"])
