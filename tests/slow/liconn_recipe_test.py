"""`configs/liconn.py` as it stands, smaller: every line of the recipe at work on cubes.

Only sizes are overridden on the command line: crops, network, steps and intervals, and the
two micro-batches that stand for two devices.
"""

import json
import pathlib
import runpy

import numpy as np
import pytest

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint, restore
from nisbjax.config import flatten
from nisbjax.models import build
from nisbjax.train.metric_writer import read_history

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SIZES = {
    "synth.shape": "(64, 56, 48)",
    "synth.volumes": "('train/seed0', 'train/seed1', 'val/seed5', 'test/seed6')",
    "data.patch": "(16, 16, 16)",
    "model.size": "S",
    "model.channels": "4",
    "train.steps": "24",
    "train.accumulate": "2",
    "train.val_every": "8",
    "train.val_crops": "6",
    "train.log_every": "4",
    "train.ckpt_every": "10",
    "ema.warmup_steps": "6",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, launched):
    workdir = tmp_path_factory.mktemp("liconn")
    launched("synth", workdir, SIZES, config="liconn")
    launched("train", workdir, SIZES, config="liconn")
    return Run(workdir)


def test_nothing_but_sizes_differs_from_the_recipe(run):
    recipe = flatten(runpy.run_path(str(ROOT / "configs/liconn.py"))["get_config"]())
    used = json.loads(run.config.read_text())
    differing = {key for key in used if used[key] != recipe[key]}
    follow = {"schedule.steps", "predict.window", "data.root"}
    assert differing <= set(SIZES) | follow
    assert used["train.precision"] == "fp16" and used["model.remat"] == "block"
    assert used["loss.calibre_max"] == 1  # off
    assert used["augment.profile"] == "aug_banis" and used["data.erosion"] == [0, 2, 2]


def test_the_curves_are_those_of_the_recipe(run):
    lines = read_history(run.history)
    train = [line for line in lines if "train/loss" in line]
    val = [line for line in lines if "val/loss" in line]
    assert [line["step"] for line in train] == [4, 8, 12, 16, 20, 24]
    assert [line["step"] for line in val] == [8, 16, 24]
    # Loss scaling: 65536, halved by each step that overflowed and was skipped.
    skipped = sum(line["train/skipped"] for line in train[:-1])
    assert train[-1]["train/loss_scale"] <= 65536 * 0.5**skipped
    # Six channels, each about ln 2 times its weight at first; the sum is the loss.
    for line in train + val:
        kind = "train" if "train/loss" in line else "val"
        channels = [line[f"{kind}/per_channel/{c}"] for c in range(6)]
        assert sum(channels) == pytest.approx(line[f"{kind}/loss"], rel=1e-4)
        assert all(0 < line[f"{kind}/pos_weight/{c}"] <= 10 for c in range(6))
    # The cosine from 1e-3, by updates that were not skipped.
    updates = train[-1]["step"] - 1 - sum(line["train/skipped"] for line in train)
    rate = 1e-3 * (1 + np.cos(np.pi * updates / 24)) / 2
    assert train[-1]["train/lr"] == pytest.approx(rate, rel=1e-3)
    assert val[-1]["val/loss"] < val[0]["val/loss"]


def test_the_checkpoints_are_those_of_the_recipe(run):
    # Latest, best three of three validations, every tenth.
    steps = [checkpoint.step_of(p) for p in checkpoint.numbered(run.checkpoints)]
    assert steps == [24, 20, 16, 10, 8]
    newest = checkpoint.find(run.path)
    assert checkpoint.fact(newest, "loader") == {
        "seed": 42,
        "global_batch": 2,
        "accumulate": 2,
        "next_batch": 24,
    }
    like = build.abstract_params(checkpoint.describe(newest))
    raw = restore.weights(newest, "raw", like)
    ema = restore.weights(newest, "ema", like)
    a, b = (t["stem"]["weight"] for t in (raw, ema))
    # A copy for six updates, then 0.999 of it for 18: it lags behind, not far.
    assert 0 < np.abs(a - b).max() < 0.05
    assert {str(leaf.dtype) for leaf in (a, b)} == {"float32"}


def test_the_weights_predict_and_score(run, launched):
    newest = f"--checkpoint={run.checkpoints / '24'}"
    launched("validate", run.path, SIZES, newest, config="liconn")
    (row,) = json.loads(run.validation.json.read_text())["checkpoints"]
    assert row["step"] == 24
    assert all(0 <= row[name] <= 1 for name in ("nerl", "best_nerl"))
