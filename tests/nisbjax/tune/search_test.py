"""A search: as many trials as were asked for, whoever dies or finishes meanwhile."""

import os

import optuna
import pytest

from nisbjax.errors import InputError
from nisbjax.tune import search, study

SPACE = {"threshold": optuna.distributions.FloatDistribution(0.0, 1.0)}


def half(_):
    return {"nerl": 0.5}


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_samplers_search_several_parameters(kind):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = optuna.create_study(direction="maximize", sampler=study.sampler(kind, 1))
    space = {"threshold": (0.4, 0.94), "min_size": (0, 100)}
    tried = []

    def score(parameters):
        tried.append(dict(parameters))
        return {"nerl": 1 - abs(parameters["threshold"] - 0.7)}

    first = {"threshold": 0.75, "min_size": 0, "method": "affinity_cc"}
    assert study.run_sampled(opened, space, first, 12, score) == 12
    assert tried[0] == {"threshold": 0.75, "min_size": 0}
    assert all(isinstance(p["min_size"], int) for p in tried)
    assert all(0.4 <= p["threshold"] <= 0.94 for p in tried)
    # a second run has nothing left to do, and can be asked for more
    assert study.run_sampled(opened, space, first, 12, score) == 0
    assert study.run_sampled(opened, space, first, 14, score) == 2


def test_trials_of_dead_processes_are_taken_over_while_others_tune(
    opened, running, gone
):
    """Without being released: those who share a study cannot know that they are alone."""
    running(0.5, gone)
    running(0.6, {})  # killed before it said whose it is
    running(0.7, {"process": 7, "host": "elsewhere"})
    # the process id belongs to another process by now, which started later
    parent = {**gone, "process": os.getppid()}
    running(0.8, parent)
    assert study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 4, half) == 3
    states = [trial.state.name for trial in opened.trials]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING", "COMPLETE"]
    assert [t.params["threshold"] for t in opened.trials] == [0.5, 0.6, 0.7, 0.8]


def test_trials_of_living_processes_are_waited_for(opened, running, gone, monkeypatch):
    """One of them dies, and its trial is taken over: the study has as many as wanted."""
    parent = os.getppid()
    running(0.5, {**gone, "process": parent, "started": 0})
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            opened._storage.set_trial_user_attr(0, "process", gone["process"])

    monkeypatch.setattr(search.time, "sleep", wait)
    assert study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 1, half) == 1
    assert len(waits) == 3
    assert [trial.params for trial in study.complete(opened)] == [{"threshold": 0.5}]


def test_released_trials_are_nobodys_even_if_their_process_id_lives(
    opened, running, gone
):
    running(0.5, {**gone, "process": os.getppid(), "started": 0})
    assert study.release_orphans(opened, retry=True) == 1
    assert study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 1, half) == 1


def test_a_trial_that_another_process_finished_does_no_harm(opened):

    def finished_meanwhile(_):
        opened.tell(len(opened.trials) - 1, 0.25)
        return {"nerl": 0.5}

    study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 2, finished_meanwhile)
    assert [trial.value for trial in opened.trials] == [0.25, 0.25]


def test_three_failures_in_a_row_end_a_search(opened):

    def score(parameters):
        raise OSError("disk full")

    with pytest.raises(InputError, match="3 trials in a row failed .*disk full"):
        study.run_sampled(opened, {"threshold": (0.4, 0.9)}, {}, 10, score)
    assert len(opened.trials) == 3


def test_killed_trials_of_a_search_are_tried_again(opened):
    opened.enqueue_trial({"threshold": 0.61})
    opened.ask(SPACE)
    assert study.release_orphans(opened, retry=True) == 1
    tried = []

    def score(parameters):
        tried.append(parameters["threshold"])
        return {"nerl": 0.5}

    study.run_sampled(opened, {"threshold": (0.4, 0.9)}, {}, 1, score)
    assert tried == [0.61]
