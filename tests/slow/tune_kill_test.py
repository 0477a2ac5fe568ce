"""Kills inside commits, by number, and tuners side by side: as if nobody had been killed."""

import collections
import os
import pickle
import random
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time

import networkx as nx
import numpy as np
import optuna
import pytest
from kill_campaign import few_or_all
from optuna.trial import TrialState

from nisbjax import artifacts
from nisbjax.store import volume
from nisbjax.tune import best_params
from nisbjax.tune.study import GRIDS

pytestmark = pytest.mark.slow

SHAPE = (24, 8, 8)

CHILD = """
import pathlib, sys
from nisbjax import artifacts, config
from nisbjax.evaluate.truth import Truth
from nisbjax.keys import determines
from nisbjax.tune import stage
from nisbjax.tune.inputs import Inputs

folder = pathlib.Path(sys.argv[1])
settings = config.base_config()
settings.tune.sampler = sys.argv[3]
settings.tune.grid = "pytc"
settings.tune.trials = 14
settings.tune.storage = sys.argv[2]
inputs = Inputs(
    str(folder / "raw.zarr"),
    Truth(str(folder / "skeleton.pkl"), "", (9.0, 9.0, 12.0)),
    determines.facts(settings, "study"),
)
out = artifacts.Run(folder).tune(1)
stage.run(settings.tune, settings.decode, out, inputs, seed=settings.seed)
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    affinities = rng.uniform(0.4, 1, (3, *SHAPE)).astype(np.float16)
    volume.create_zarr(
        tmp_path / "raw.zarr",
        shape=affinities.shape,
        dtype=np.float16,
        chunks=(3, 8, 8, 8),
        axes="cxyz",
    ).write(..., affinities)
    graph = nx.Graph()
    for x in range(24):
        where = (x, 3, 3)
        nm = tuple(9.0 * w for w in where)
        graph.add_node(x, id=1, index_position=where, nm_position=nm)
        if x:
            graph.add_edge(x - 1, x)
    (tmp_path / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    return tmp_path


def start(library, folder, storage, kind, at=0) -> int:
    """Tunes, to the end or to a file operation on the study; how many there were.

    Every other kill falls into the middle of a write.
    """
    counter = folder / "count"
    counter.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "KILL_AT_ROOT": str(storage),  # and what begins so: journals and locks
        "KILL_AT_COUNT": str(counter),
        "KILL_AT": str(at),
    }
    if at % 2:
        environment["KILL_AT_TORN"] = "1"
    command = [sys.executable, "-c", CHILD, str(folder), str(storage), kind]
    done = subprocess.run(  # noqa: PLW1510 (a kill is no error here)
        command, env=environment, capture_output=True, text=True, timeout=240
    )
    wanted = (0, -signal.SIGKILL) if at else (0,)
    assert done.returncode in wanted, done.stderr[-2000:]
    (operations,) = struct.unpack("q", counter.read_bytes()[:8])
    return operations


@pytest.mark.parametrize(
    ("name", "kills"), few_or_all(("study.db", 6, 20), ("study.journal", 6, 20))
)
def test_kills_inside_commits(folder, library, name, kills):
    storage = folder / name
    whole = start(library, folder, folder / f"whole.{name}", "grid")
    draw = random.Random(name)
    inside = 0
    for _ in range(kills):
        # once it is made, an eighth: one or two thresholds of 21 at a time
        most = whole // 8 if storage.exists() else whole
        start(library, folder, storage, "grid", draw.randint(1, most))
        journal = folder / f"{name}-journal"
        inside += journal.exists() and journal.stat().st_size > 0
    assert name == "study.journal" or inside >= max(1, 3 * kills // 20)
    start(library, folder, storage, "grid")
    assert complete(storage) == dict.fromkeys(GRIDS["pytc"], 1)
    assert states(storage) == states(folder / f"whole.{name}")
    assert [found.name for found in folder.glob("study.*")] == [name]
    before = trials(storage)
    start(library, folder, storage, "grid")
    assert trials(storage) == before


@pytest.mark.parametrize(
    "kind",
    ["tpe", *(pytest.param(k, marks=pytest.mark.long) for k in ("random", "qmc"))],
)
def test_a_sampler_that_is_killed_draws_the_same_points(folder, library, kind):
    storage = folder / "study.db"
    whole = start(library, folder, folder / "whole.db", kind)
    draw = random.Random(kind)
    for _ in range(6):
        most = whole // 3 if storage.exists() else whole
        start(library, folder, storage, kind, draw.randint(1, most))
    start(library, folder, storage, kind)
    assert states(storage) == states(folder / "whole.db")
    assert len(states(storage)) == 14
    assert [found.name for found in folder.glob("study.*")] == ["study.db"]


def states(storage) -> list:
    return [(t.number, t.state, t.params, t.value) for t in trials(storage)]


WORKER = """
import pathlib, sys, time
from nisbjax import artifacts, config
from nisbjax.evaluate import nerl
from nisbjax.evaluate.truth import Truth
from nisbjax.keys import determines
from nisbjax.tune import stage
from nisbjax.tune.inputs import Inputs

folder = pathlib.Path(sys.argv[1])
settings = config.base_config()
settings.tune.sampler = "tpe"
settings.tune.trials = 12
settings.tune.storage = sys.argv[2]
score = nerl.score

def slow_score(*arguments, **options):
    time.sleep(0.3)
    return score(*arguments, **options)

nerl.score = slow_score
inputs = Inputs(
    str(folder / "raw.zarr"),
    Truth(str(folder / "skeleton.pkl"), "", (9.0, 9.0, 12.0)),
    determines.facts(settings, "study"),
)
out = artifacts.Run(folder).tune(1)
stage.run(settings.tune, settings.decode, out, inputs, seed=settings.seed)
"""


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_tuners_side_by_side_share_one_study(folder, name):
    storage = folder / name
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), str(storage)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0, 0]
    found = trials(storage)
    assert len(found) == 12
    assert {t.state for t in found} == {TrialState.COMPLETE}
    assert all(
        {"coverage", "voi_sum", "n_splits"} <= t.user_attrs.keys() for t in found
    )
    assert len({round(t.params["threshold"], 6) for t in found}) == len(found)
    # At the same time: a trial began before one of another process had ended.
    assert any(
        a.user_attrs["process"] != b.user_attrs["process"]
        and a.datetime_start < b.datetime_start < a.datetime_complete
        for a in found
        for b in found
    )
    best = best_params.read(artifacts.Run(folder).tune(1).best_params)
    assert best["best_value"] == max(t.value for t in found)
    assert best["trials_complete"] == len(found)


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_tuners_of_which_one_is_killed_complete_the_study(folder, name):
    storage = folder / name
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), str(storage)]
    workers = [subprocess.Popen(command) for _ in range(2)]
    wait_for(
        lambda: (
            {t.user_attrs.get("process") for t in trials(storage)}
            >= {worker.pid for worker in workers}
        )
    )
    workers[0].send_signal(signal.SIGKILL)
    # The killed one is not waited for before: it stays in the table of processes.
    assert workers[1].wait(timeout=240) == 0
    assert workers[0].wait() == -signal.SIGKILL
    found = trials(storage)
    assert [t.state for t in found] == [TrialState.COMPLETE] * 12
    assert len({round(t.params["threshold"], 6) for t in found}) == 12


def test_a_second_grid_is_refused_by_name(folder):
    """Another command, on the same study, while the first is at work."""
    storage = folder / "study.db"
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), str(storage)]
    with subprocess.Popen(command) as first:
        wait_for(lambda: trials(storage))
        second = subprocess.run(  # noqa: PLW1510 (it fails)
            [sys.executable, "-c", CHILD, str(folder), str(storage), "grid"],
            capture_output=True,
            text=True,
        )
    assert second.returncode != 0
    line = f"is being run by process {first.pid} on {socket.gethostname()}"
    assert line in second.stderr.splitlines()[-1]


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def trials(storage) -> list:
    if not storage.exists():
        return []
    if storage.suffix == ".db":
        backend = f"sqlite:///{storage}"
    else:
        backend = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(storage))
        )
    if not optuna.get_all_study_names(backend):
        return []
    return optuna.load_study(
        study_name="nisb_base_banis_cc_tuning", storage=backend
    ).trials


def complete(storage) -> dict[float, int]:
    """How often each threshold (to 1e-6) is COMPLETE with a finite value."""
    values = [
        round(t.params["threshold"], 6)
        for t in trials(storage)
        if t.state == TrialState.COMPLETE and np.isfinite(t.value)
    ]
    return dict(collections.Counter(values))
