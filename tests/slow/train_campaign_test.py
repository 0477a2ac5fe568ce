"""Kills, wherever they fall, and full disks: the bytes of a run that nobody disturbed.

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
from nisbjax.checkpoint.checkpoint import find
from nisbjax.config import base_config, flatten

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 120

CHILD = """
import json, os, pathlib, signal, sys
import small_networks
from nisbjax import launch
from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.store import checksums
from nisbjax.train import stage

folder = pathlib.Path(sys.argv[1])

small_networks.use(small_networks.ONE_BLOCK)
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
seal = checksums.write

def seal_or_die(folder):
    # Between Orbax's commit of a step and our seal of it.
    if folder.name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    seal(folder)

checksums.write = seal_or_die
launch.quiet_libraries()
config = base_config()
config.update_from_flattened_dict(json.loads(sys.argv[2]))
folder.mkdir(parents=True, exist_ok=True)
try:
    stage.run(config, Run(folder))
except InputError as error:
    launch.fail(str(error))
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


def start(folder, keys, threads=2, dies_before_the_seal_of: int = -1, **options):
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [sys.executable, "-c", CHILD, str(folder)]
    arguments.append(json.dumps({**keys, "train.loader_threads": threads}))
    arguments.append(str(dies_before_the_seal_of))
    return subprocess.Popen(arguments, env=environment, **options)


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


def every_byte(folder, last=STEPS):
    """All arrays of the newest checkpoint, optimizer and loss scale included."""
    import orbax.checkpoint as ocp

    newest = find(folder)
    assert newest.name == str(last)
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


def checkpoints(folder):
    """Steps that Orbax committed, and whether each is sealed."""
    return {
        int(path.name): (path / "SHA256SUMS").exists()
        for path in pathlib.Path(folder, "checkpoints").iterdir()
        if path.name.isdigit()
    }


def test_a_kill_between_commit_and_seal_costs_no_step(tmp_path, keys):
    """Only the newest is kept, so that nothing but it could be taken again."""
    steps = {"train.steps": 24, "train.ckpt_every": 0, "train.ckpt_best": 0}
    keys = keys | steps | {"train.val_every": 6, "train.val_crops": 2}
    undisturbed, folder = tmp_path / "a", tmp_path / "b"
    assert start(undisturbed, keys).wait(600) == 0
    killed = -signal.SIGKILL
    assert start(folder, keys, dies_before_the_seal_of=6).wait(600) == killed
    assert checkpoints(folder) == {6: False}
    assert start(folder, keys, dies_before_the_seal_of=18).wait(600) == killed
    assert checkpoints(folder) == {12: True, 18: False}
    assert history(folder)[0]["step"] == 1  # nothing began again
    child = start(folder, keys, stderr=subprocess.PIPE, text=True)
    said = child.communicate(timeout=600)[1]
    assert child.returncode == 0
    assert "18 was not sealed (no SHA256SUMS) and reads whole; sealed" in said
    assert "going on at step 18" in said
    assert checkpoints(folder) == {24: True}
    assert every_byte(folder, 24) == every_byte(undisturbed, 24)
    assert history(folder) == history(undisturbed)


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a file system of its own another size."""
    if os.geteuid():
        pytest.skip("only root may mount")
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options, str(place)], check=False).returncode

    if mount("-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        pytest.skip("no file system can be mounted here")

    def resize(size):
        assert mount("-o", f"remount,size={size}") == 0
        return place

    yield resize
    subprocess.run(["umount", str(place)], check=True)


# A checkpoint takes 220 to 250 KB, as its writes fall into pages. Where the disk is 160 KB
# the first is cut off; where it is 512 KB the first is sealed. Between them any of these may
# be, and one that is committed without room left for its seal.
@pytest.mark.parametrize(
    "size",
    [
        "240k",
        *(pytest.param(s, marks=pytest.mark.long) for s in ("160k", "256k", "512k")),
    ],
)
def test_a_full_disk_is_one_line_and_costs_nothing(tmp_path, keys, small_disk, size):
    keys = keys | {"train.steps": 40, "train.val_every": 8, "train.val_crops": 2}
    folder = small_disk(size) / "run"
    child = start(folder, keys, stderr=subprocess.PIPE, text=True)
    said = child.communicate(timeout=600)[1]
    assert child.returncode == 2
    assert "Traceback" not in said, said
    assert "No space left on device" in said
    assert [x[:9] for x in said.splitlines() if "could not be" in x] == ["nisbjax: "]
    assert (
        said.splitlines()[-1][:9] == "nisbjax: "
    )  # what Orbax lost is not said besides
    kept = checkpoints(folder)
    reached = max(kept, default=0)
    assert reached < 40
    if size == "160k":
        assert not reached
    if size == "512k":
        assert kept[reached] or len(kept) > 1
    small_disk("20m")
    child = start(folder, keys, stderr=subprocess.PIPE, text=True)
    said = child.communicate(timeout=600)[1]
    assert child.returncode == 0
    assert f"going on at step {reached}" in said or not reached
    assert ("was not sealed (no SHA256SUMS) and reads whole" in said) == (
        False in kept.values()
    )
    assert not [p for p in (folder / "checkpoints").iterdir() if "tmp" in p.name]
    undisturbed = tmp_path / "undisturbed"
    assert start(undisturbed, keys).wait(600) == 0
    assert every_byte(folder, 40) == every_byte(undisturbed, 40)
    assert history(folder) == history(undisturbed)
