"""Five kills, wherever they fall, and the bytes of a run that nobody killed.

The network is a stem, one MedNeXt block and a head, so that each of the seven starts takes
seconds; the loop, loader, optimizer, average, validation and checkpoints are the real ones.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from nisbjax.artifacts import Run
from nisbjax.checkpoint import find
from nisbjax.config import base_config, flatten

pytestmark = pytest.mark.slow

STEPS = 120

CHILD = """
import json, pathlib, sys, time
import jax.numpy as jnp
import numpy as np
from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.models import blocks, build
from nisbjax.train import stage

folder = pathlib.Path(sys.argv[1])

def initial_params(arguments, seed):
    draw = np.random.default_rng(seed)
    def layer(*shape):
        weight = draw.normal(0, 0.5, shape).astype(np.float32)
        return {"weight": weight, "bias": np.zeros(shape[-1], np.float32)}
    norm = {"weight": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    block = {"conv1": layer(3, 3, 3, 4), "norm": norm}
    block |= {"conv2": layer(4, 8), "conv3": layer(8, 4)}
    return {"stem": layer(1, 4), "block": block, "head": layer(4, 6)}

def make_apply(arguments, dtype, *, remat):
    def apply(params, images):
        x = blocks.pointwise(images.astype(dtype), params["stem"])
        return blocks.pointwise(blocks.block(x, params["block"]), params["head"])
    return apply

build.initial_params, build.make_apply = initial_params, make_apply

validation = stage._validation

def noted(*arguments):
    # A file says from outside that a validation is under way; it is not of the run.
    validate = validation(*arguments)
    def validate_(state):
        (folder / "validating").touch()
        found = validate(state)
        (folder / "validating").unlink()
        return found
    return validate_

stage._validation = noted
config = base_config()
config.update_from_flattened_dict(json.loads(sys.argv[2]))
folder.mkdir(parents=True, exist_ok=True)
stage.run(config, Run(folder))
"""


@pytest.fixture(scope="module")
def keys(object_grid):
    return {
        "data.root": str(object_grid),
        "data.patch": [12, 12, 12],
        "data.erosion": [0, 1, 1],
        "train.precision": "fp32",
        "train.batch_per_device": 1,
        "train.accumulate": 2,
        "train.steps": STEPS,
        "train.log_every": 1,
        "train.val_every": 6,
        "train.val_crops": 12,
        "train.ckpt_every": 4,
        "loss.balance_group": 1,
        "ema.warmup_steps": 10,
    }


def test_the_keys_are_of_the_configuration(keys):
    assert keys.keys() <= flatten(base_config()).keys()


def start(folder, keys, threads):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [sys.executable, "-c", CHILD, str(folder)]
    arguments.append(json.dumps({**keys, "train.loader_threads": threads}))
    return subprocess.Popen(arguments, env=environment)


def history(folder):
    """Every whole line that was logged, without what it took."""
    path = Run(folder).history
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        {
            k: v
            for k, v in json.loads(x).items()
            if not k.startswith(("time/", "memory/"))
        }
        for x in lines
        if x.endswith("}")
    ]


def last_step(folder):
    return max((line["step"] for line in history(folder)), default=0)


def unfinished(folder):
    """Checkpoints that were begun: Orbax's temporary folders, and those not sealed."""
    return [
        path.name
        for path in pathlib.Path(folder, "checkpoints").glob("*")
        if "orbax-checkpoint-tmp" in path.name
        or (path.name.isdigit() and not (path / "SHA256SUMS").exists())
    ]


def kill_when(child, reached):
    """Kills as soon as a condition holds; whether the process was still running."""
    while child.poll() is None:
        if reached():
            child.kill()
            break
        time.sleep(0.0005)
    return child.wait(600) == -signal.SIGKILL


def every_byte(folder):
    """All arrays of the newest checkpoint, optimizer and loss scale included."""
    import orbax.checkpoint as ocp

    newest = find(folder)
    assert newest.name == str(STEPS)
    items = {}
    for name in ("params", "ema", "optimizer"):
        with ocp.StandardCheckpointer() as reader:
            items[name] = reader.restore(newest / name)
    import jax
    import numpy as np

    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(items)
    }


def test_five_kills_change_no_byte(tmp_path, keys):
    undisturbed, folder = tmp_path / "a", tmp_path / "b"
    assert start(undisturbed, keys, threads=4).wait(600) == 0
    timer = random.Random(0)
    fell = []

    # Inside the write of a checkpoint: what is there after the kill was never finished.
    child = start(folder, keys, threads=1)
    assert kill_when(child, lambda: last_step(folder) >= 8 and unfinished(folder))
    assert unfinished(folder)
    fell.append(last_step(folder))

    # Inside a validation.
    child = start(folder, keys, threads=2)
    reached = fell[-1] + 8
    marker = folder / "validating"
    assert kill_when(child, lambda: last_step(folder) >= reached and marker.exists())
    assert marker.exists()
    last = history(folder)[-1]
    assert last["step"] % keys["train.val_every"] == 0 and "val/loss" not in last
    fell.append(last["step"])
    marker.unlink()

    # Wherever a timer that knows nothing of the run lets them fall.
    for threads in (3, 4, 1):
        child = start(folder, keys, threads)
        began = fell[-1]
        while child.poll() is None and last_step(folder) <= began + 3:
            time.sleep(0.01)
        end = time.monotonic() + timer.uniform(0.05, 0.6)
        assert kill_when(child, lambda end=end: time.monotonic() >= end)
        fell.append(last_step(folder))

    assert fell == sorted(fell) and fell[-1] < STEPS
    assert start(folder, keys, threads=2).wait(600) == 0
    assert every_byte(folder) == every_byte(undisturbed)
    assert history(folder) == history(undisturbed)
