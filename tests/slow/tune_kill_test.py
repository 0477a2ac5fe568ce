"""Kills at random moments, and tuners side by side; each grid value COMPLETE once."""

import collections
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import networkx as nx
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nisbjax import artifacts
from nisbjax.store import volume
from nisbjax.tune.stage import read_best_params
from nisbjax.tune.study import GRIDS

pytestmark = pytest.mark.slow

SHAPE = (24, 8, 8)

CHILD = """
import pathlib, sys, time
from nisbjax import artifacts, config
from nisbjax.evaluate import nerl
from nisbjax.tune import stage, storage

folder = pathlib.Path(sys.argv[1])
settings = config.base_config()
settings.tune.grid = "pytc"
settings.tune.storage = sys.argv[2]
score, open_study = nerl.score, storage.open_study

def slow_score(*arguments, **options):
    print("scoring", flush=True)
    time.sleep(0.05)
    return score(*arguments, **options)

def announced(*arguments):
    print("opening", flush=True)
    return open_study(*arguments)

nerl.score, storage.open_study = slow_score, announced
stage.run(
    settings,
    artifacts.Run(folder).tune(1),
    prediction=folder / "raw.zarr",
    skeleton=folder / "skeleton.pkl",
)
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


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_twenty_kills(folder, name):
    storage = folder / name
    draw = random.Random(name)
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(folder), str(storage)]
    reached = []
    for _ in range(20):
        moment = draw.choice([b"opening\n", b"scoring\n"])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            while child.stdout.readline() not in (moment, b""):
                pass
            time.sleep(draw.uniform(0, 0.6))
            child.send_signal(signal.SIGKILL)
        if storage.suffix == ".db" and storage.exists():
            with sqlite3.connect(storage) as database:
                (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
            database.close()
            assert verdict == "ok"
        counts = complete(storage)
        assert not counts or max(counts.values()) == 1
        reached.append(len(counts))
    # the kills fell before, between and among the trials
    assert reached[0] < 21
    assert len(set(reached)) > 4
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert complete(storage) == dict.fromkeys(GRIDS["pytc"], 1)
    before = trials(storage)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert len(trials(storage)) == len(before)
    assert {t.state for t in before} <= {TrialState.COMPLETE, TrialState.FAIL}


WORKER = """
import pathlib, sys, time
from nisbjax import artifacts, config
from nisbjax.evaluate import nerl
from nisbjax.tune import stage

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
stage.run(
    settings,
    artifacts.Run(folder).tune(1),
    prediction=folder / "raw.zarr",
    skeleton=folder / "skeleton.pkl",
)
"""


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_tuners_side_by_side_share_one_study(folder, name):
    storage = folder / name
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), str(storage)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0, 0]
    found = trials(storage)
    # each looks before it asks, so a trial more than wanted for each other is possible
    assert 12 <= len(found) <= 14
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
    best = read_best_params(artifacts.Run(folder).tune(1).best_params)
    assert best["best_value"] == max(t.value for t in found)
    assert best["trials_complete"] == len(found)


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
