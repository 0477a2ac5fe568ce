"""Crops split over devices: loss and gradients of one device, and few messages.

Eight virtual devices, in a process of their own: the other tests have four.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

CHILD = """
import json, re, sys
import jax, numpy as np, optax
from nisbjax.parallel import devices
from nisbjax.config import base_config
from nisbjax.data.loader import Batch
from nisbjax.models import build
from nisbjax.train import step
from nisbjax.train.recipe import make_recipe_on
import dataclasses

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
options = json.loads(sys.argv[1])
config = base_config()
config.data.patch = (128, 16, 16)
config.model.size = "S"
config.model.channels = 2
config.model.remat = "none"
config.augment.affine = 0.0
config.augment.shift = 0.0
config.train.precision = "fp32"
config.update_from_flattened_dict(options["keys"])
draw = np.random.default_rng(0)
crop = (138, 26, 26)
objects = draw.integers(-1, 5, (8, 14, 3, 3)).astype(np.int32)
labels = objects.repeat(10, 1).repeat(10, 2).repeat(10, 3)
labels = labels[:, :138, :26, :26]
batch = Batch(
    draw.integers(0, 256, (8, *crop, 1), np.uint8),
    labels,
    np.array([[0, 255, 0, 1]] * 8, np.float32),
    np.arange(8, dtype=np.int32),
    np.ones(8, bool),
)
params = build.initial_params(config.model.to_dict(), 0)

def collectives(program):
    text = program.as_text()
    kinds = "collective-permute", "all-gather", "all-reduce", "all-to-all", "reduce-scatter"
    return {k: len(re.findall(rf"= [^=]*? {k}(?:-start)?\\(", text)) for k in kinds}

found = {}
for name, shape in options["meshes"].items():
    count = shape["data"] * shape.get("space", 1)
    mesh = devices.make_mesh(tuple(shape.items()), jax.devices()[:count])
    recipe = make_recipe_on(mesh, config)
    # What it keeps is the gradient itself.
    recipe = dataclasses.replace(recipe, optimizer=optax.trace(0.0))
    state = step.initial_state(params, recipe.optimizer, "fp32")
    state = jax.device_put(state, devices.replicated(mesh))
    crops = jax.device_put(batch, devices.split_batch(mesh))
    program = step.make_train_step(recipe, mesh).lower(state, crops).compile(QUICK)
    memory = program.memory_analysis().temp_size_in_bytes
    state, scalars = program(state, crops)
    found[name] = {
        "loss": float(scalars["loss"]),
        "grad_norm": float(scalars["grad_norm"]),
        "collectives": collectives(program),
        "temporary_bytes": memory,
        "gradient": {k: v.tolist() for k, v in state.optimizer.trace.items()},
    }
    if options["validate"]:
        evaluate = step.make_validation_step(recipe, mesh).lower(state.params, crops)
        scalars, view = evaluate.compile(QUICK)(state.params, crops)
        found[name] |= {
            "val": float(scalars["loss"]),
            "accuracy": float(scalars["accuracy"]),
            "view": float(sum(p.sum() for p in view.predictions)),
        }
print(json.dumps(found))
"""
MESHES = {
    "one": {"data": 1},
    "data": {"data": 8},
    "space": {"data": 2, "space": 4},
}


def steps(*names, validate=True, **keys):
    options = {"meshes": {name: MESHES[name] for name in names}}
    options |= {"keys": keys, "validate": validate}
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(options)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_equal(found, wanted, rtol):
    for key in {"loss", "grad_norm", "val", "accuracy", "view"} & wanted.keys():
        assert found[key] == pytest.approx(wanted[key], rel=rtol), key
    # Of all norms, and of all other weights; a vector's error beside its length.
    assert found["gradient"].keys() == wanted["gradient"].keys() == {"norm", "other"}
    for group, want in wanted["gradient"].items():
        error = np.subtract(found["gradient"][group], want)
        assert np.linalg.norm(error) < rtol * np.linalg.norm(want)
        assert np.abs(error).max() < rtol * np.abs(want).max()


def test_a_step_of_split_crops_is_that_of_one_device():
    found = steps("one", "data", "space")
    assert_equal(found["data"], found["one"], 1e-6)
    assert_equal(found["space"], found["one"], 1e-6)

    # 128, 64 and 32 planes are split, 16 and 8 whole. Of each split level's kernels of 3:
    # the blocks before and after reach to both sides (a stage is one loop: 2 + 2), the
    # steps down and up to one (1 + 1). The gradient sends as many back.
    permutes = 3 * (2 + 2 + 1 + 1)
    # A norm for each of these convolutions, and level 3 made whole.
    gathers = 3 * (1 + 1 + 1 + 1) + 1
    made = found["space"]["collectives"]
    assert made["collective-permute"] == 2 * permutes
    assert made["all-gather"] == gathers and made["all-to-all"] == 0
    assert made["reduce-scatter"] == 1  # the gradient of level 3 made whole
    # Of gradients, counts of classes and moments' gradients; XLA joins some of them.
    assert made["all-reduce"] <= 20
    alone = found["data"]["collectives"]
    assert alone.pop("all-reduce") <= 8 and not any(alone.values())
    # What the backward pass keeps is split: here four samples on four devices, there all
    # eight on one.
    assert found["space"]["temporary_bytes"] < 0.25 * found["one"]["temporary_bytes"]


@pytest.mark.long
def test_larger_kernels_deep_supervision_and_rematerialisation():
    keys = {
        "model.kernel_size": 5,
        "model.deep_supervision": True,
        "model.remat": "block",
        "train.accumulate": 2,
    }
    found = steps("one", "space", validate=False, **keys)
    assert_equal(found["space"], found["one"], 2e-6)
