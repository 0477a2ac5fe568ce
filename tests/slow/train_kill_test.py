"""A MedNeXt in training that is killed goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint, restore
from nisbjax.config import base_config, flatten

pytestmark = pytest.mark.slow

STEPS = 30  # enough that a signal after step 4 falls before the end

CHILD = """
import json, pathlib, sys
from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.train import stage

config = base_config()
config.update_from_flattened_dict(json.loads(sys.argv[2]))
stage.run(config, Run(pathlib.Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def keys(object_grid):
    return {
        "data.root": str(object_grid),
        "data.patch": [16, 16, 16],
        "data.erosion": [0, 1, 1],
        "model.size": "S",
        "model.channels": 4,
        "model.remat": "none",
        "loss.balance_group": 1,
        "train.precision": "fp32",
        "train.batch_per_device": 1,
        "train.steps": STEPS,
        "train.log_every": 1,
        "train.val_every": 3,
        "train.val_crops": 2,
        "train.ckpt_every": 2,
        "ema.warmup_steps": 2,
    }


def start(folder, keys):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
        "--xla_backend_optimization_level=0",  # a third of the seconds
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [sys.executable, "-c", CHILD, str(folder), json.dumps(keys)]
    return subprocess.Popen(arguments, env=environment)


def history(folder):
    path = Run(folder).history
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        {
            k: v
            for k, v in json.loads(line).items()
            if not k.startswith(("time/", "memory/"))
        }
        for line in lines
        if line.endswith("}")
    ]


def bytes_of(folder):
    """Names and chunks of every array of the newest checkpoint."""
    import jax

    from nisbjax.models import build

    found = checkpoint.find(folder)
    like = build.abstract_params(checkpoint.describe(found))
    return {
        which: [np.asarray(a).tobytes() for a in jax.tree.leaves(weights)]
        for which in ("raw", "ema")
        for weights in [restore.weights(found, which, like)]
    }


@pytest.fixture(scope="module")
def undisturbed(keys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start(folder, keys).wait(1800) == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, keys, undisturbed, number):
    folder = tmp_path / "killed"
    child = start(folder, keys)
    # After a checkpoint (2, 3 or 4) and between that and the next.
    while child.poll() is None and not any(x["step"] >= 4 for x in history(folder)):
        time.sleep(0.005)
    child.send_signal(number)
    assert child.wait(600) == (143 if number == signal.SIGTERM else -number)
    assert checkpoint.step_of(checkpoint.find(folder)) < STEPS
    assert start(folder, keys).wait(1800) == 0
    assert history(folder) == history(undisturbed)
    assert bytes_of(folder) == bytes_of(undisturbed)


def test_the_keys_are_of_the_configuration(keys):
    assert keys.keys() <= flatten(base_config()).keys()
