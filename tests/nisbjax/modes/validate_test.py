"""Scores of checkpoints as they appear: what is scored, when it ends, what it leaves.

The network is linear: its logits are a bias, and the image's grey value times a weight.
Neurites are bright, so a larger weight separates them better.
"""

import csv
import json
import os
import pickle
import shutil
import signal
import warnings

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.modes import tuning, validate
from nisbjax.store import lock
from nisbjax.store.volume import create_zarr, open_volume

pytestmark = pytest.mark.usefixtures("linear_network")

SHAPE = (12, 9, 8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two bright neurites along x, 4 x 8 voxels thick, and a dark plane between them."""
    folder = tmp_path_factory.mktemp("nisb")
    labels = np.ones(SHAPE, np.uint8)
    labels[:, 4], labels[:, 5:] = 0, 2
    image = np.where(labels, 250, 5).astype(np.uint8)[..., None]
    for name, values in (("img", image), ("seg", labels)):
        create_zarr(
            folder / "val/seed5/data.zarr" / name,
            shape=values.shape,
            dtype="uint8",
            chunks=(6, 6, 6, 1)[: values.ndim],
            axes="xyzc"[: values.ndim],
        ).write(..., values)
    graph = nx.Graph()
    for neurite, y in ((1, 1), (2, 7)):
        for x in range(12):
            place = (neurite, x)
            graph.add_node(place, id=neurite, index_position=(x, y, 3))
            graph.nodes[place]["nm_position"] = (9.0 * x, 9.0 * y, 36.0)
            if x:
                graph.add_edge((neurite, x - 1), place)
    (folder / "val/seed5/skeleton.pkl").write_bytes(pickle.dumps(graph))
    return folder


@pytest.fixture
def settings(root):
    c = base_config()
    c.data.root = str(root)
    c.data.patch = (8, 8, 8)
    c.model.out_channels = 3
    c.data.offsets = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    c.decode.affinity_mask = ""
    c.predict.batch_per_device = 1
    c.tune.thresholds = (0.5, 0.9)
    c.validate.poll_seconds = 0.01
    c.train.steps = 99
    return c


@pytest.fixture
def folder(tmp_path, settings):
    """A run of 20 steps, as far as its config."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"train.steps": 20}))
    return folder


def save(folder, settings, weights):
    """Checkpoints of {step: weight}; 10 decodes well at .75, -10 joins what is dark."""
    kept = Checkpoints(folder / "checkpoints", best=0, every=1)
    facts = {"step": {}, "loader": {}, "config": {}}
    facts["model"] = build.describe(settings.model.to_dict())
    for step, weight in weights.items():
        ones = jnp.ones((1, settings.model.out_channels))
        head = {"weight": weight * ones, "bias": -0.5 * weight * ones[0]}
        ema = {"head": head, "norm": {"weight": ones[0]}}  # weight * (image - 0.5)
        arrays = {"params": {"w": jnp.ones(1)}, "ema": ema}
        arrays["optimizer"] = {"w": jnp.ones(1)}
        kept.save(step, arrays, facts)
    kept.close()


def run(settings, folder, checkpoint="", **extras):
    return launch.run_mode("validate", settings, str(folder), checkpoint, **extras)


@pytest.fixture
def quick(monkeypatch):
    """Scores nothing: for tests of what is scored when."""

    def score(settings, place, found):
        row = {"step": int(found.name), "threshold": 0.75, "nerl": 0.5}
        return row | {"best_threshold": 0.5, "best_nerl": 1.0}

    monkeypatch.setattr(validate, "_score", score)


def snapshot(folder):
    """Every file of the run but those of validation, with its content's size and time."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "validate" not in path.relative_to(folder).parts
    }


def test_every_checkpoint_is_scored_once_and_little_is_left(settings, folder):
    save(folder, settings, {10: 20, 20: -20})
    before = snapshot(folder)
    first, second = run(settings, folder)
    # sigmoid(0.2 * 20 * 0.48) = .87: two neurites at .75, none at .9.
    assert (first["step"], second["step"]) == (10, 20)
    assert first["nerl"] == first["best_nerl"] == 1.0 and first["coverage"] == 0
    assert (first["threshold"], first["best_threshold"]) == (0.75, 0.5)
    # The dark plane alone is joined: every node lies on background.
    assert second["nerl"] == second["best_nerl"] == 0.0 and second["coverage"] == 1
    place = Run(folder).validation
    stored = json.loads(place.json.read_text())["checkpoints"]
    assert stored == [first, second]
    rows = list(csv.DictReader(place.csv.read_text().splitlines()))
    assert [float(row["nerl"]) for row in rows] == [1, 0]
    assert snapshot(folder) == before
    assert list(place.checkpoints.iterdir()) == []
    names = {p.name for p in place.path.rglob("*") if p.is_file()}
    assert "best_params.yaml" in names and "slices.png" in names
    assert any(name.startswith("eval_decoded") for name in names)
    assert not list(place.path.rglob("*.zarr")) and not list(
        place.path.rglob("raw*.h5")
    )

    assert curves(folder)["validate/nerl"] == [(10, 1), (20, 0)]


@pytest.mark.usefixtures("quick")
def test_nothing_is_scored_twice(settings, folder):
    save(folder, settings, {10: 20, 20: 20})
    first = run(settings, folder)
    place = Run(folder).validation
    times = snapshot(place.path)
    assert run(settings, folder) == first
    assert snapshot(place.path) == times
    save(folder, settings, {30: 20})
    assert [row["step"] for row in run(settings, folder)] == [10, 20, 30]
    assert curves(folder)["validate/nerl"] == [(10, 0.5), (20, 0.5), (30, 0.5)]


def curves(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing import event_accumulator

        found = event_accumulator.EventAccumulator(str(folder / "logs/validate"))
        found.Reload()
    tags = found.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags}


def test_a_named_checkpoint_alone_and_what_is_kept(settings, folder):
    save(folder, settings, {10: 20, 20: 20})
    settings.validate.keep = True
    (row,) = run(settings, folder, str(folder / "checkpoints" / "10"))
    assert row["step"] == 10
    out = Run(folder).validation.path / "tune_step=00000010/predictions/seed5"
    assert out.joinpath("raw_x1_ch0-1-2.zarr").is_dir()
    assert len(list(out.glob("decoded_*.zarr"))) == 1


@pytest.mark.parametrize(
    "channels, sides", [((0, 1, 2, 3, 4, 5), (1, 5)), ((3, 4, 5), (5, 1))]
)
def test_other_channels_are_predicted_and_scored(settings, folder, channels, sides):
    """All six, and a network whose edges of one voxel come last."""
    settings.model.out_channels = 6
    settings.data.offsets = tuple(
        tuple(side * int(axis == i) for i in range(3))
        for side in sides
        for axis in range(3)
    )
    settings.predict.channels = channels
    save(folder, settings, {20: 20})
    (row,) = run(settings, folder)
    assert row["nerl"] == row["best_nerl"] == 1.0


def test_skeletons_are_scored_whatever_an_evaluation_is_asked_for(settings, folder):
    save(folder, settings, {3: 20})
    settings.evaluate.metrics = ("adapted_rand",)
    (row,) = run(settings, folder)
    assert (row["step"], row["nerl"]) == (3, 1.0) and "voi_sum" in row


@pytest.mark.usefixtures("quick")
def test_watching_ends_with_the_run_and_sees_what_training_deletes(
    settings, folder, monkeypatch
):
    """Checkpoints appear while it sleeps; training keeps the newest alone."""
    coming = iter([{5: 20}, {10: -20}, {15: 20, 20: 20}])
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        save(folder, settings, next(coming))

    monkeypatch.setattr(validate.time, "sleep", sleep)
    rows = run(settings, folder, watch=True)
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert slept == [0.01] * 3
    # Once it is over, it is over.
    assert run(settings, folder, watch=True) == rows


@pytest.mark.usefixtures("quick")
def test_watching_ends_when_it_is_told_or_nothing_comes(settings, folder, monkeypatch):
    save(folder, settings, {5: 20})
    place = Run(folder).validation
    monkeypatch.setattr(
        validate.time, "sleep", lambda seconds: place.stop.write_text("")
    )
    assert [row["step"] for row in run(settings, folder, watch=True)] == [5]
    assert not place.stop.exists() and not place.lock.exists()
    settings.validate.idle_minutes = 1e-6
    assert len(run(settings, folder, watch=True)) == 1


def test_stopped_in_the_middle_it_goes_on_with_its_own_copy(
    settings, folder, monkeypatch
):
    save(folder, settings, {10: 20, 20: 20})
    predict = tuning.predict

    def stop(*arguments):
        predict(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "predict", stop)
        with pytest.raises(SystemExit) as stopped:
            run(settings, folder)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    place = Run(folder).validation
    assert not place.lock.exists() and not place.json.exists()
    assert [p.name for p in place.checkpoints.iterdir()] == ["10"]
    kept = snapshot(place.checkpoints / "10")
    shutil.rmtree(folder / "checkpoints" / "10")  # training went on
    shutil.rmtree(folder / "checkpoints" / "20")
    save(folder, settings, {10: -20})  # and is not asked again
    assert snapshot(place.checkpoints / "10") == kept
    (row,) = run(settings, folder)
    assert (row["step"], row["nerl"]) == (10, 1)


@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_is_left_out_and_refused_by_name(settings, folder, caplog):
    save(folder, settings, {10: 20, 20: 20})
    path = folder / "checkpoints/20/ema/_METADATA"
    path.write_bytes(path.read_bytes() + b" ")
    assert [row["step"] for row in run(settings, folder)] == [10]
    assert "checkpoints/20 is damaged (ema/_METADATA changed" in caplog.text
    # To watch is not to wait for it for ever.
    assert [row["step"] for row in run(settings, folder, watch=True)] == [10]
    with pytest.raises(InputError, match="checkpoints/20 is damaged"):
        run(settings, folder, str(folder / "checkpoints" / "20"))


@pytest.mark.usefixtures("quick")
def test_what_a_kill_left_is_scored_or_swept(settings, folder):
    save(folder, settings, {10: 20, 20: 20})
    place = Run(folder).validation
    run(settings, folder, str(folder / "checkpoints" / "20"))
    # Killed while it copied 15, while it scored 10, and before it removed 20.
    (place.checkpoints / "15.partial" / "ema").mkdir(parents=True)
    for step in ("10", "20"):
        shutil.copytree(folder / "checkpoints" / step, place.checkpoints / step)
    shutil.rmtree(folder / "checkpoints" / "10")  # by training, meanwhile
    assert [row["step"] for row in run(settings, folder)] == [10, 20]
    assert list(place.checkpoints.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_an_unsealed_checkpoint_is_left_out_aloud(settings, folder, caplog):
    caplog.set_level("INFO", logger="absl")
    save(folder, settings, {10: 20, 20: 20})
    (folder / "checkpoints/20/SHA256SUMS").unlink()
    assert [row["step"] for row in run(settings, folder)] == [10]
    assert "checkpoints/20 is left out until training seals it" in caplog.text
    with pytest.raises(InputError, match="checkpoints/20 was not sealed .no SHA256SUM"):
        run(settings, folder, str(folder / "checkpoints/20"))


def test_every_checkpoint_has_its_own_files_whatever_keys_name(
    settings, folder, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    settings.predict.input = str(elsewhere / "img")
    settings.predict.output = str(elsewhere / "raw.h5")
    settings.qc.report = str(elsewhere / "report.md")
    settings.mask.output = str(elsewhere / "mask.h5")
    settings.decode.output = str(elsewhere / "labels.zarr")
    settings.evaluate.label = str(elsewhere / "seg")
    settings.decode.affinity_mask = "auto"
    settings.validate.keep = True
    settings.qc.update({"border_width": 1, "z_stride": 1})
    save(folder, settings, {10: 20})
    run(settings, folder)
    assert not elsewhere.exists()
    (place,) = (folder / "validate").glob("tune_step=*/predictions/*")
    assert {"raw_x1_ch0-1-2.zarr", "affinity_mask.h5", "check_aff_report.md"} <= {
        path.name for path in place.iterdir()
    }
    assert list(place.glob("decoded_*.zarr"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("key", ["qc.input", "mask.report"])
def test_what_it_makes_itself_is_not_taken(settings, folder, key):
    settings.update_from_flattened_dict({key: "/x"})
    save(folder, settings, {10: 20})
    with pytest.raises(InputError, match=f"{key} is /x, and --mode=validate makes its"):
        run(settings, folder)
    assert not (folder / "validate" / "nerl.json").exists()


@pytest.mark.usefixtures("quick")
def test_two_do_not_validate_one_run(settings, folder):
    save(folder, settings, {10: 20})
    with (
        lock.held(Run(folder).validation.lock),
        pytest.raises(InputError, match="validate is being written by process .* on"),
    ):
        run(settings, folder, watch=True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("5", "nerl.json is 5; wanted the keys made_from, checkpoints; move .*valid"),
        ('{"made_from": {}, "checkpoints": [{"step": "1"}]}', r"\[0\].step is '1'; wa"),
        ('{"made_from": 3, "checkpoints": []}', "made_from is 3; wanted keys with va"),
        ('{"made_from": {}, "chec', "nerl.json is not valid JSON"),
    ],
)
def test_a_table_of_something_else_is_refused(settings, folder, content, message):
    save(folder, settings, {10: 20})
    place = Run(folder).validation
    place.path.mkdir()
    place.json.write_text(content)
    with pytest.raises(InputError, match=message):
        run(settings, folder)
    assert place.json.read_text() == content


@pytest.mark.usefixtures("quick")
def test_scores_by_other_keys_are_not_mixed(settings, folder):
    save(folder, settings, {10: 20})
    run(settings, folder)
    settings.decode.threshold = 0.6
    with pytest.raises(
        InputError,
        match=r"nerl.json was made with decode.threshold 0.75, now it is 0.6; move .*va",
    ):
        run(settings, folder)


@pytest.mark.usefixtures("quick")
def test_scores_of_other_data_are_not_mixed(settings, folder, root, tmp_path):
    """Data may move; what was put in their place is something else."""
    save(folder, settings, {10: 20})
    run(settings, folder)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    settings.data.root = str(moved)
    run(settings, folder)
    image = open_volume(moved / "val/seed5/data.zarr/img", writable=True)
    image.write((0, 0, 0, 0), np.array(7, np.uint8))
    with pytest.raises(InputError, match=r"nerl.json was made with image '.*; move .*"):
        run(settings, folder)


def test_what_goes_with_what(settings, folder, tmp_path):
    with pytest.raises(InputError, match="--watch follows a whole run; leave --check"):
        run(settings, folder, "somewhere", watch=True)
    with pytest.raises(
        InputError, match="--watch goes with --mode=validate, not train"
    ):
        launch.run_mode("train", settings, str(folder), watch=True)
    with pytest.raises(InputError, match="no checkpoint at"):
        run(settings, folder)
