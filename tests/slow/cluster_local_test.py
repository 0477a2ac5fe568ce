"""Spawned processes of Dask, which end with the work."""

import os

import psutil
import pytest

from nisbjax.geometry import box_grid
from nisbjax.parallel.cluster import map_boxes

pytestmark = pytest.mark.slow


def children():
    return {c.pid for c in psutil.Process().children(recursive=True)}


def test_local_processes_give_the_boxes_in_order_and_end():
    pytest.importorskip("distributed")
    boxes = box_grid((8, 8, 8), (4, 4, 4))
    before = children()
    results = list(map_boxes(str, boxes, kind="local", workers=2))
    assert results == [str(b) for b in boxes]
    pids = set(map_boxes(_pid, range(8), kind="local", workers=2))
    assert os.getpid() not in pids
    # Python's own resource tracker may stay.
    left = [psutil.Process(p) for p in children() - before if psutil.pid_exists(p)]
    assert not [p for p in left if "spawn_main" in " ".join(p.cmdline())]


def _pid(_):
    return os.getpid()
