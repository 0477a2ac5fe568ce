"""Scores of checkpoints as they appear: what is scored, when it ends, what it leaves.

The network is linear: its logits are a bias, and the image's grey value times a weight.
Neurites are bright, so a larger weight separates them better.
"""

import csv
import json
import os
import shutil
import signal
import warnings

import pytest
from validated_runs import run, save, snapshot

from nisbjax.artifacts import Run
from nisbjax.modes import tuning, validate

pytestmark = pytest.mark.usefixtures("linear_network")


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


def test_without_skeletons_dense_labels_are_scored(settings, folder, caplog):
    caplog.set_level("INFO")
    save(folder, settings, {10: 20})
    settings.data.val.skeleton = ""
    (row,) = run(settings, folder)
    # Each neurite is one segment, the dark plane none: as in the labels. At .9 all is
    # background, of whose 12 x 8 x 8 voxels the form keeps a share: worse.
    assert row["adapted_rand_error"] == row["best_adapted_rand_error"] == 0
    assert row["voi_sum"] == row["best_voi_sum"] == 0 and "nerl" not in row
    assert row["best_threshold"] == 0.5
    assert "step 10: adapted Rand error 0.0000, 0.0000 as tuned" in caplog.messages
    assert run(settings, folder) == [row]
    # one flag asks for the same where skeletons are named
    settings.data.val.skeleton = "val/seed5/skeleton.pkl"
    settings.tune.objective = "adapted_rand"
    assert run(settings, folder) == [row]


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
