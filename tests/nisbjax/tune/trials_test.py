"""Trials: whose they are, which belong to nobody any more, and how they fail."""

import math
import os
import socket

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from nisbjax.errors import InputError
from nisbjax.tune import study, trials

SPACE = {"threshold": FloatDistribution(0.0, 1.0)}


def test_trials_of_another_host_are_left_alone(opened):
    for host in ("elsewhere", None):
        opened.enqueue_trial({"threshold": 0.4})
        trial = opened.ask(SPACE)
        if host:
            trial.set_user_attr("host", host)
    assert study.release_orphans(opened, retry=False) == 1
    assert [t.state for t in opened.trials] == [TrialState.RUNNING, TrialState.FAIL]


@pytest.mark.parametrize("every_host", [False, True])
def test_trials_of_other_hosts_are_released_where_one_host_alone_can_tune(
    opened, running, every_host
):
    running(0.5, {"process": 7, "started": 3, "host": "elsewhere"})
    count = study.release_orphans(opened, retry=True, every_host=every_host)
    assert count == every_host
    study.run_grid(opened, (0.5, 0.6), list, lambda t: {"nerl": t})
    assert [trial.params["threshold"] for trial in opened.trials] == (
        [0.5, 0.6] if every_host else [0.5, 0.5, 0.6]
    )


@pytest.mark.parametrize(
    ("ends", "drawn"),
    [
        ((0.4, 0.9), FloatDistribution(0.4, 0.9)),
        ((0, 1000), IntDistribution(0, 1000)),  # log(0) is none
        ((10, 999), IntDistribution(10, 999)),
        ((10, 1000), IntDistribution(10, 1000, log=True)),  # a factor of 100
    ],
)
def test_what_a_parameter_is_drawn_from(ends, drawn):
    assert trials.drawn_from(ends) == drawn


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("no such  chunk\nin raw.zarr"), "no such chunk in raw.zarr"),
        (KeyError("key"), "KeyError: 'key'"),
        (MemoryError(), "MemoryError"),
        (OSError("x" * 999), "OSError: " + "x" * 300),
    ],
)
def test_an_error_in_one_line(error, line):
    assert trials.line_of(error) == line


@pytest.mark.parametrize("nerl", [math.nan, math.inf])
def test_what_is_no_number_is_no_score(nerl):
    assert trials.measure(lambda: {"nerl": nerl}) == ({}, f"its NERL is {nerl}")
    assert trials.measure(lambda: {"nerl": 0.5, "voi_sum": 1}) == (
        {"nerl": 0.5, "voi_sum": 1},
        "",
    )
    mean = {"nerl": 0.5, "nerl_mean": nerl}
    found = trials.measure(lambda: mean, "nerl_mean")
    assert found == ({}, f"its mean over skeletons is {nerl}")
    found = trials.measure(lambda: {"nerl": 0.5}, "voi")
    assert found == ({}, "its VOI is nan")


def test_a_trial_keeps_the_figures_of_its_score():
    found = {"nerl": 0.5, "erl": 7.0, "n_splits": 3, "n_nodes": 24}
    assert trials.attributes_of(found) == {
        "nerl": 0.5,
        "erl": 7.0,
        "n_splits": 3,
    }


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({}, True),  # it has ended
        ({"process": 0}, True),  # released
        ({"process": "7"}, True),  # half marked
        ({"host": ""}, True),
        ({"host": "elsewhere"}, False),  # nothing is known
        ({"process": os.getpid()}, True),  # who asks runs none
        ({"process": os.getppid(), "started": 0}, False),
        ({"process": os.getppid(), "started": 1}, True),  # of the same id, earlier
    ],
)
def test_whose_process_is_gone(opened, running, gone, change, dead):
    running(0.5, gone | change)
    assert trials.is_dead(opened.trials[0]) == dead


def test_a_process_marks_its_trials(opened, running):
    running(0.5, trials.identity())
    (trial,) = opened.trials
    assert trial.user_attrs["process"] == os.getpid()
    assert trial.user_attrs["host"] == socket.gethostname()
    assert list(trial.user_attrs)[-1] == "host"


def test_what_has_been_drawn_is_not_drawn_again(opened):
    opened.enqueue_trial({"threshold": 0.25})
    trial = opened.ask()
    trials.suggest(trial, "threshold", FloatDistribution(0.0, 1.0))
    # of 0.5 to 1, had it not been drawn before its process died
    trials.suggest(trial, "threshold", FloatDistribution(0.5, 1.0))
    trials.suggest(trial, "min_size", IntDistribution(3, 3))
    assert trial.params == {"threshold": 0.25, "min_size": 3}
    trials.fail(opened, opened.trials[0], "no room")
    assert opened.trials[0].user_attrs["error"] == "no room"
    assert opened.trials[0].state == TrialState.FAIL
