"""Training in 2 and 4 real processes: one run, one result, one stop.

The processes speak Gloo on this machine; SLURM's part is in slurm_test.py. All but one of
the tests train a linear network, the other one a stem, a MedNeXt block and a head, so that
each of the many starts compiles in seconds.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint, restore
from nisbjax.store import lock
from nisbjax.train.metric_writer import read_history

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
DEVICES = 4  # of all processes together
STEPS = 6

CHILD = """
import json, sys
import small_networks
from nisbjax import launch
from nisbjax.config import base_config
from nisbjax.models.kernels import on_device

job = json.loads(sys.argv[1])
config = base_config()
config.update_from_flattened_dict(job["keys"])

networks = small_networks.ONE_BLOCK, small_networks.LINEAR
small_networks.use(networks[job["linear"]])
if job["gpu"]:  # as far as the choice of kernels is concerned
    on_device.on_gpu = lambda: True
launch.quiet_libraries()
try:
    launch.run_mode("train", config, job["workdir"], coordinator=job["place"])
except launch.InputError as error:
    launch.fail(str(error))
"""


@pytest.fixture(scope="module")
def keys(object_grid):
    return {
        "data.root": str(object_grid),
        "data.patch": [16, 16, 16],
        "data.erosion": [0, 1, 1],
        "model.size": "S",
        "model.channels": 2,
        "model.remat": "none",
        "augment.affine": 0.0,
        "augment.shift": 0.0,
        "optimizer.lr": 0.01,
        "train.precision": "fp32",
        "train.batch_per_device": 1,
        "train.steps": STEPS,
        "train.log_every": 1,
        "train.val_every": 3,
        "train.val_crops": 6,  # the second batch of four is padded
        "train.ckpt_every": 2,
        "ema.warmup_steps": 2,
    }


def start(folder, keys, processes, devices=DEVICES, linear=True, gpu=False):
    """Starts all processes of a run, `devices` shared among them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices // processes}"
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "XLA_FLAGS": f"{flags} --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": f"{folder}.cache",
    }
    children = []
    for process in range(processes):
        place = [address, processes, process] if processes > 1 else None
        job = {"workdir": str(folder), "keys": keys, "place": place, "linear": linear}
        job["gpu"] = gpu
        folder.mkdir(exist_ok=True)
        with open(f"{folder}.{process}.log", "a") as log:
            children.append(
                subprocess.Popen(
                    [sys.executable, "-c", CHILD, json.dumps(job)],
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
    return children


def end(children, seconds=600):
    """Their statuses; none is left behind."""
    try:
        return [child.wait(seconds) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()


def train(folder, *arguments, **options):
    assert set(end(start(folder, *arguments, **options))) == {0}, log(folder)
    return folder


def log(folder, process=0):
    with open(f"{folder}.{process}.log") as file:
        return file.read()


def history(folder):
    return [
        {k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))}
        for line in read_history(Run(folder).history)
    ]


def arrays(folder):
    """Weights and their average of the newest checkpoint of a linear network."""
    found = checkpoint.find(folder)
    values = np.zeros((1, 6), np.float32)
    like = {
        "head": {"weight": values, "bias": values[0]},
        "norm": {"weight": values[0]},
    }
    weights = [restore.weights(found, which, like) for which in ("raw", "ema")]
    return found.name, [np.asarray(a) for a in jax.tree.leaves(weights)]


def assert_same_run(got, want, rtol):
    """Every logged number (losses, gradient norms, rates) and the weights at the end."""
    for one, other in zip(history(got), history(want), strict=True):
        assert one.keys() == other.keys()
        assert one == pytest.approx(other, rel=rtol, abs=rtol)
    (step, got_arrays), (wanted_step, wanted) = arrays(got), arrays(want)
    assert step == wanted_step == str(STEPS)
    for a, b in zip(got_arrays, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.fixture(scope="module")
def alone(keys, tmp_path_factory):
    """One process that has all devices."""
    return train(tmp_path_factory.mktemp("alone") / "run", keys, 1)


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_are_one_run(keys, alone, tmp_path, processes):
    keys = keys | {
        "model.kernels": "pallas"
    }  # process 0 measures, and tells the others
    folder = train(tmp_path / "run", keys, processes, gpu=True)
    assert_same_run(folder, alone, 1e-6)
    # One of them writes what there is one of.
    assert len(list(Run(folder).logs.glob("events.*"))) == 1
    assert Run(folder).command.read_text().count("import json, sys") == 1
    assert not Run(folder).lock.exists()
    said = [log(folder, process) for process in range(processes)]
    assert f"on 4 x CPU on {processes} hosts" in said[0]
    assert not any(re.search(r"step \d: loss", text) for text in said[1:])
    chosen = json.loads(Run(folder).environment.read_text())["kernels"]["chosen"]
    assert chosen == {
        f"scaled float32[{4 // DEVICES},16,16,16,1] float32[1] power=1": "pallas"
    }
    assert ["chose how 1 operations" in text for text in said] == [
        process == 0 for process in range(processes)
    ]
    # And again: the same bytes.
    again = train(tmp_path / "again", keys, processes, gpu=True)
    assert history(again) == history(folder)
    for a, b in zip(arrays(again)[1], arrays(folder)[1], strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_mednext_block_in_two_processes(keys, tmp_path):
    """Losses and gradient norms of each step, which the weights have gone into."""
    one = train(tmp_path / "one", keys, 1, linear=False)
    two = train(tmp_path / "two", keys, 2, linear=False)
    for got, want in zip(history(two), history(one), strict=True):
        assert got == pytest.approx(want, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_one_process_stops_all_at_one_step(keys, tmp_path, number):
    folder = tmp_path / "run"
    # Steps without end: the one process that gets the signal decides.
    children = start(folder, keys | {"train.steps": 10_000, "schedule.steps": STEPS}, 2)
    deadline = time.monotonic() + 300
    while not history(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    children[1].send_signal(number)
    assert end(children) == [143, 143], log(folder, 1)
    stopped = int(checkpoint.find(folder).name)
    assert history(folder)[-1]["step"] == stopped
    assert f"stopped by signal at step {stopped}" in log(folder)


def test_a_run_goes_on_in_other_processes_on_other_devices(keys, alone, tmp_path):
    """Begun by four, resumed by two that have one device each, then by one."""
    folder = tmp_path / "run"
    schedule = {"schedule.steps": STEPS}
    for processes, devices, steps in ((4, 4, 2), (2, 2, 4), (1, 1, STEPS)):
        more = schedule | {"train.steps": steps, "train.val_every": 0}
        train(folder, keys | more, processes, devices)
        assert checkpoint.fact(checkpoint.find(folder), "loader")["global_batch"] == 4
    lines = [x for x in history(alone) if "train/loss" in x]
    assert len(lines) == STEPS
    for got, want in zip(history(folder), lines, strict=True):
        assert got == pytest.approx(want, rel=1e-5, abs=1e-5)
    for a, b in zip(arrays(folder)[1], arrays(alone)[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_one_process_refuses_ends_all(keys, tmp_path):
    """With its one line, and soon: the others do not wait for it."""
    folder = tmp_path / "run"
    folder.mkdir()
    keys = keys | {"train.global_batch": 6}
    statuses = end(start(folder, keys, 2), 200)
    assert statuses == [2, 2]
    assert "nisbjax: the global batch is 6 on 4 devices" in log(folder)


def damage(folder, step):
    """One bit of the weights, which Orbax would restore without a word."""
    files = (Run(folder).checkpoints / str(step) / "params").rglob("*")
    largest = max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))


def test_damage_is_found_by_one_process_for_all(keys, alone, tmp_path):
    """The checkpoint before it is taken by both; without any, both are refused."""
    folder = tmp_path / "run"
    keys = keys | {"train.val_every": 0, "schedule.steps": STEPS}
    train(folder, keys | {"train.steps": 4}, 2)
    damage(folder, 4)
    train(folder, keys, 2)
    said = [log(folder, process) for process in range(2)]
    assert "checkpoints/4 is damaged (params/" in said[0]
    assert f"going on at step 2 of {Run(folder).checkpoints}" in said[0]
    assert "is damaged" not in said[1]  # nor did it look
    lines = [x for x in history(alone) if "train/loss" in x]
    for got, want in zip(history(folder), lines, strict=True):
        assert got == pytest.approx(want, rel=1e-5, abs=1e-5)

    other = keys | {"train.steps": STEPS + 2}
    for step in (2, 4, 6):
        damage(folder, step)
    assert end(start(folder, other, 2), 200) == [2, 2], log(folder, 1)
    for process in range(2):
        refusal = log(folder, process).splitlines()[-1]
        assert "nisbjax: no checkpoint in" in refusal
        assert "2.damaged, " in refusal or ", 2.damaged" in refusal


def test_a_folder_that_is_taken_ends_all(keys, tmp_path):
    """The first process alone asks for the lock."""
    folder = tmp_path / "run"
    with lock.held(Run(folder).lock):
        assert end(start(folder, keys, 2), 200) == [2, 2], log(folder, 1)
    for process in range(2):
        assert "is being written by process" in log(folder, process)


def test_processes_of_different_folders_are_refused(tmp_path):
    """Through the command line's own flags."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    children = []
    for process in range(2):
        flags = {"config": ROOT / "configs/demo.py", "workdir": tmp_path / str(process)}
        flags |= {"coordinator": address, "processes": 2, "process": process}
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "nisbjax.launch"]
                + [f"--{name}={value}" for name, value in flags.items()],
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [child.communicate(timeout=200)[1] for child in children]
    assert [child.returncode for child in children] == [2, 2], said
    assert all("differ in their folder or configuration" in text for text in said)
    assert not any((tmp_path / str(process)).exists() for process in range(2))
