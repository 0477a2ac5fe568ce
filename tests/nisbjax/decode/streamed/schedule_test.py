"""Threads of a box: a share of the cores by who else is at work."""

import os

import pytest

from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError


@pytest.mark.parametrize(
    "schedule, threads",
    [
        (Schedule(), 4),  # two boxes at a time on 8 cores
        (Schedule("local", workers=4), 2),
        (Schedule("local"), 1),  # a worker for each core
        (Schedule("local", workers=16), 1),
        (Schedule("dask", workers=3), None),  # whatever that machine has
        (Schedule("dask", threads=5), 5),
        (Schedule(threads=3), 3),
    ],
)
def test_threads_of_a_box(monkeypatch, schedule, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert schedule.threads_of_a_box() == threads


def test_a_team_of_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="cluster.kind is 'slurm'; wanted one of"):
        Schedule("slurm").team()
    with Schedule().team() as team:
        assert list(team.map(lambda i: 2 * i, [1, 2, 3])) == [2, 4, 6]
