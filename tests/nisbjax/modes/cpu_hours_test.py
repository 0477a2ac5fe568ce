"""What would take days on CPUs is refused where there is no GPU, unless it is asked for."""

import os

import jax
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.modes import cpu_hours, presets
from nisbjax.store.volume import create_zarr


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


@pytest.fixture
def image(tmp_path):
    """Of 512 x 128 x 128 voxels; none is written, all are 0."""
    shape = (512, 128, 128)
    return create_zarr(
        tmp_path / "img", shape=shape, dtype=np.uint8, chunks=shape, axes="xyz"
    ).source


@pytest.mark.parametrize("name", ["liconn", "nisb_base", "banis", "banis_small"])
def test_presets_for_gpus_are_refused_without_one(name):
    config = presets.load(name)
    with pytest.raises(
        InputError, match="JAX finds no GPU here; run it on one"
    ) as line:
        cpu_hours.require_training(config, 0)
    # By its last step there is little left.
    cpu_hours.require_training(config, config.train.steps - 10)
    config.train.cpu_hours = 1e6
    cpu_hours.require_training(config, 0)
    assert "--config.train.cpu_hours=" in str(line.value)


def test_how_long_it_takes():
    """963 GFLOP x 4 passes x 2 crops x 200,000 steps at 2 x 40 GFLOP/s: 5,350 hours."""
    with pytest.raises(
        InputError, match="200000 steps of 2 crops of 128 x 128 x 128 v"
    ):
        cpu_hours.require_training(presets.load("liconn"), 0)
    with pytest.raises(InputError, match="takes about 5,348 hours on 2 CPU cores"):
        cpu_hours.require_training(presets.load("liconn"), 0)


@pytest.mark.parametrize("name", ["demo", "fib25"])
def test_presets_for_cpus_are_not_refused(name):
    cpu_hours.require_training(presets.load(name), 0)


def test_a_prediction(image):
    """7 windows of 963 GFLOP at 2 x 40 GFLOP/s: 84 s; each of its 8 flips, 674 s."""
    config = presets.load("liconn")
    cpu_hours.require_prediction(config, image)
    config.predict.cpu_hours = 100 / 3600
    cpu_hours.require_prediction(config, image)
    config.predict.tta = "flips"
    with pytest.raises(
        InputError, match="7 windows of 128 x 128 x 128 voxels, takes ab"
    ):
        cpu_hours.require_prediction(config, image)
    # A region has the windows that reach into it: along x at 0 and 64, 193 s; at 0, 96 s.
    config.predict.roi = "0:128,0:128,0:128"
    with pytest.raises(InputError, match="2 windows of 128 x 128 x 128 voxels"):
        cpu_hours.require_prediction(config, image)
    config.predict.roi = "0:64,0:128,0:128"
    cpu_hours.require_prediction(config, image)


def test_a_gpu_is_not_asked(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    cpu_hours.require_training(presets.load("liconn"), 0)
