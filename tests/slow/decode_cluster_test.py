"""A streamed decode by spawned processes, one of them killed on the way."""

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from small_chains import labels_at, noise, written

from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.decode.streamed.schedule import Schedule

pytestmark = pytest.mark.slow

SHAPE = (128, 96, 96)


@pytest.mark.filterwarnings("ignore")  # Dask reports the worker that is killed
def test_a_killed_worker_changes_nothing(tmp_path):
    pytest.importorskip("distributed")
    values = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    values = values.astype(np.float16)
    affinities = written(tmp_path / "raw.zarr", values, 32)
    output = labels_at(tmp_path / "labels.zarr", SHAPE, 32)
    folder = tmp_path / "labels.zarr" / ".scratch"
    killed = []

    def kill_one():
        # As soon as the first box is written, one of the workers dies.
        while not list(folder.glob("*.npz")):
            time.sleep(0.01)
        workers = [
            child
            for child in psutil.Process(os.getpid()).children(recursive=True)
            if "spawn_main" in " ".join(child.cmdline())
        ]
        workers[-1].send_signal(signal.SIGKILL)
        killed.append(workers[-1].pid)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    statistics = label_volume(
        affinities,
        output,
        0.7,
        memory_gb=1.0,
        schedule=Schedule("local", workers=3, threads=1, box_shape=(32, 32, 32)),
    )
    killer.join(timeout=5)
    expected = label_affinities(values, 0.7)
    assert killed
    np.testing.assert_array_equal(output.read(), expected)
    assert statistics.segments == expected.max()


def test_processes_decode_the_chain_as_threads_do(tmp_path):
    pytest.importorskip("distributed")
    shape = (48, 24, 24)
    affinities = written(tmp_path / "raw.zarr", noise(1, shape), 16)
    found = []
    for kind in ("threads", "local"):
        output = labels_at(tmp_path / f"{kind}.zarr", shape, 16)
        chain_volume(
            affinities,
            output,
            parameters=ChainParameters(anchor=4, low=0.3),
            memory_gb=1.0,
            schedule=Schedule(kind, 2, box_shape=(20, 12, 24)),
        )
        found.append(output.read())
    assert found[0].max() > 1
    np.testing.assert_array_equal(*found)
