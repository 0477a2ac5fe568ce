"""Trials: each grid value COMPLETE exactly once, failures FAIL, orphans released."""

import math
import os
import signal
import socket
import subprocess
import sys
import textwrap

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from nisbjax.errors import InputError
from nisbjax.tune import search, storage, study

GRID = study.GRIDS["tutorial"]
SPACE = {"threshold": optuna.distributions.FloatDistribution(0.0, 1.0)}


def in_memory() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def parabola(threshold: float) -> dict[str, float | int]:
    """Best at 0.70: NERL 1 - (threshold - 0.7)^2, other figures constant."""
    return {"nerl": 1 - (threshold - 0.7) ** 2, "voi_sum": 2.0, "n_splits": 3}


def as_they_are(thresholds):
    return list(thresholds)


def done(opened) -> list[float]:
    return sorted(t.params["threshold"] for t in study.complete(opened))


def test_grids_of_the_references():
    # .40, .46 ... .94: ten values
    assert GRID == (0.40, 0.46, 0.52, 0.58, 0.64, 0.70, 0.76, 0.82, 0.88, 0.94)
    assert study.GRIDS["banis"][:3] == (0.4502, 0.5, 0.5498)
    assert study.GRIDS["banis"][-1] == 0.9002
    assert len(study.GRIDS["banis"]) == 13
    assert study.GRIDS["pytc"][0] == 0.5
    assert study.GRIDS["pytc"][-1] == 0.9
    assert len(study.GRIDS["pytc"]) == 21


def test_each_value_once_then_nothing():
    opened = in_memory()
    assert study.run_grid(opened, GRID, as_they_are, parabola) == 10
    assert done(opened) == pytest.approx(GRID)
    assert study.run_grid(opened, GRID, as_they_are, parabola) == 0
    assert len(opened.trials) == 10
    top = study.best(opened)
    assert top.params == {"threshold": 0.70}
    assert top.user_attrs["voi_sum"] == 2.0
    assert top.user_attrs["n_splits"] == 3


def test_a_larger_grid_evaluates_what_is_new_in_one_pass():
    opened = in_memory()
    study.run_grid(opened, GRID, as_they_are, parabola)
    passes = []

    def prepare(thresholds):
        passes.append(thresholds)
        return thresholds

    # 0.46000000001 is 0.46 to 1e-6
    wider = (*GRID[2:], 0.46000000001, 0.34, 0.97)
    assert study.run_grid(opened, wider, prepare, parabola) == 2
    assert passes == [[0.34, 0.97]]


def test_a_failed_trial_is_FAIL_with_its_error_and_comes_back():
    opened = in_memory()

    def score(threshold):
        if threshold == 0.58:
            raise RuntimeError("no\nroom")
        return parabola(threshold)

    with pytest.raises(
        InputError, match=r"1 of 10 thresholds failed \(RuntimeError: no"
    ):
        study.run_grid(opened, GRID, as_they_are, score)
    (failed,) = opened.get_trials(states=(TrialState.FAIL,))
    assert failed.value is None
    assert failed.user_attrs["error"] == "RuntimeError: no room"
    assert study.missing(opened, GRID) == [0.58]
    assert study.run_grid(opened, GRID, as_they_are, parabola) == 1
    assert done(opened) == pytest.approx(GRID)


def test_a_failed_pass_fails_every_trial():
    opened = in_memory()

    def prepare(thresholds):
        raise MemoryError("affinities")

    with pytest.raises(MemoryError):
        study.run_grid(opened, GRID, prepare, parabola)
    errors = {t.user_attrs["error"] for t in opened.trials}
    assert errors == {"MemoryError: affinities"}
    assert {t.state for t in opened.trials} == {TrialState.FAIL}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_never_a_score(value):
    opened = in_memory()
    with pytest.raises(InputError, match="its NERL is"):
        study.run_grid(opened, (0.5,), as_they_are, lambda _: {"nerl": value})
    assert study.complete(opened) == []
    assert study.missing(opened, (0.5,)) == [0.5]


@given(st.data())
@settings(max_examples=15)
def test_whatever_an_earlier_run_left_each_value_completes_once(data):
    opened = in_memory()
    values = st.sampled_from([*GRID, 0.1])
    for value in data.draw(st.lists(values, max_size=8)):
        left = data.draw(st.sampled_from(["waiting", "running", "failed", "complete"]))
        if left == "complete" and value not in study.missing(opened, [*GRID, 0.1]):
            continue
        if left == "waiting":
            opened.enqueue_trial({"threshold": value})
            continue
        waiting = opened.get_trials(states=(TrialState.WAITING,))
        if waiting:  # asking would take that one
            continue
        opened.enqueue_trial({"threshold": value})
        trial = opened.ask(SPACE)
        if left == "failed":
            opened.tell(trial, state=TrialState.FAIL)
        elif left == "complete":
            opened.tell(trial, parabola(value)["nerl"])
    study.release_orphans(opened, retry=False)
    study.run_grid(opened, GRID, as_they_are, parabola)
    inside = [x for x in done(opened) if x != 0.1]
    assert inside == pytest.approx(GRID)
    states = {t.state for t in opened.trials}
    assert TrialState.RUNNING not in states


def test_trials_of_another_host_are_left_alone():
    opened = in_memory()
    for host in ("elsewhere", None):
        opened.enqueue_trial({"threshold": 0.4})
        trial = opened.ask(SPACE)
        if host:
            trial.set_user_attr("host", host)
    assert study.release_orphans(opened, retry=False) == 1
    assert [t.state for t in opened.trials] == [TrialState.RUNNING, TrialState.FAIL]


# --- samplers -------------------------------------------------------------------------


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


@pytest.fixture
def gone():
    """The attributes of a trial whose process has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return {"process": process.pid, "started": 1, "host": socket.gethostname()}


def running(opened, threshold, attributes) -> None:
    """A trial that a process has asked for and begun to draw."""
    opened.enqueue_trial({"threshold": threshold})
    trial = opened.ask(SPACE)
    for name, value in attributes.items():
        trial.set_user_attr(name, value)


def half(_):
    return {"nerl": 0.5}


def test_trials_of_dead_processes_are_taken_over_while_others_tune(gone):
    """Without being released: those who share a study cannot know that they are alone."""
    opened = in_memory()
    running(opened, 0.5, gone)
    running(opened, 0.6, {})  # killed before it said whose it is
    running(opened, 0.7, {"process": 7, "host": "elsewhere"})
    # the process id belongs to another process by now, which started later
    parent = {**gone, "process": os.getppid()}
    running(opened, 0.8, parent)
    assert study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 4, half) == 3
    states = [trial.state.name for trial in opened.trials]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING", "COMPLETE"]
    assert [t.params["threshold"] for t in opened.trials] == [0.5, 0.6, 0.7, 0.8]


def test_trials_of_living_processes_are_waited_for(gone, monkeypatch):
    """One of them dies, and its trial is taken over: the study has as many as wanted."""
    opened = in_memory()
    parent = os.getppid()
    running(opened, 0.5, {**gone, "process": parent, "started": 0})
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            opened._storage.set_trial_user_attr(0, "process", gone["process"])

    monkeypatch.setattr(search.time, "sleep", wait)
    assert study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 1, half) == 1
    assert len(waits) == 3
    assert [trial.params for trial in study.complete(opened)] == [{"threshold": 0.5}]


def test_released_trials_are_nobodys_even_if_their_process_id_lives(gone):
    opened = in_memory()
    running(opened, 0.5, {**gone, "process": os.getppid(), "started": 0})
    assert study.release_orphans(opened, retry=True) == 1
    assert study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 1, half) == 1


@pytest.mark.parametrize("every_host", [False, True])
def test_trials_of_other_hosts_are_released_where_one_host_alone_can_tune(every_host):
    opened = in_memory()
    running(opened, 0.5, {"process": 7, "started": 3, "host": "elsewhere"})
    count = study.release_orphans(opened, retry=True, every_host=every_host)
    assert count == every_host
    study.run_grid(opened, (0.5, 0.6), as_they_are, parabola)
    assert [trial.params["threshold"] for trial in opened.trials] == (
        [0.5, 0.6] if every_host else [0.5, 0.5, 0.6]
    )


def test_a_trial_that_another_process_finished_does_no_harm():
    opened = in_memory()

    def finished_meanwhile(_):
        opened.tell(len(opened.trials) - 1, 0.25)
        return {"nerl": 0.5}

    study.run_sampled(opened, {"threshold": (0.0, 1.0)}, {}, 2, finished_meanwhile)
    assert [trial.value for trial in opened.trials] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("drawn", "space", "on_grid", "message"),
    [
        (
            {"threshold": CategoricalDistribution([0.4, 0.5])},
            {"threshold": (0.4, 0.9)},
            True,
            r"trial 0 of the study .* drew threshold from CategoricalDistribution",
        ),
        (
            {"cc_threshold": FloatDistribution(0, 1)},
            {"threshold": (0.4, 0.9)},
            False,
            r"trial 0 .* tuned \['cc_threshold'\], and now it is \['threshold'\]",
        ),
        (
            {"threshold": FloatDistribution(0, 1)},
            {"threshold": (0.4, 0.9), "min_size": (0, 9)},
            False,
            r"tuned \['threshold'\], and now it is \['min_size', 'threshold'\]",
        ),
        (
            {
                "threshold": FloatDistribution(0, 1),
                "min_size": IntDistribution(0, 1000),
            },
            {"threshold": (0.4, 0.9), "min_size": (1, 1000)},  # logarithmic
            False,
            "drew min_size from IntDistribution.*log=False.* and now it is .*log=True",
        ),
    ],
)
def test_trials_that_drew_otherwise_are_refused(drawn, space, on_grid, message):
    opened = in_memory()
    params = {"threshold": 0.4, "cc_threshold": 0.4, "min_size": 5}
    opened.add_trial(
        create_trial(
            value=0.5,
            params={name: params[name] for name in drawn},
            distributions=drawn,
        )
    )
    with pytest.raises(InputError, match=message):
        study.require_like(opened, space, on_grid=on_grid)


def test_other_ranges_are_no_other_distributions():
    opened = in_memory()
    study.run_sampled(opened, {"threshold": (0.4, 0.9)}, {}, 2, half)
    study.require_like(opened, {"threshold": (0.3, 0.8)}, on_grid=False)
    study.require_like(opened, {"threshold": (0.3, 0.8)}, on_grid=True)


def test_three_failures_in_a_row_end_a_search():
    opened = in_memory()

    def score(parameters):
        raise OSError("disk full")

    with pytest.raises(InputError, match="3 trials in a row failed .*disk full"):
        study.run_sampled(opened, {"threshold": (0.4, 0.9)}, {}, 10, score)
    assert len(opened.trials) == 3


def test_killed_trials_of_a_search_are_tried_again():
    opened = in_memory()
    opened.enqueue_trial({"threshold": 0.61})
    opened.ask(SPACE)
    assert study.release_orphans(opened, retry=True) == 1
    tried = []

    def score(parameters):
        tried.append(parameters["threshold"])
        return {"nerl": 0.5}

    study.run_sampled(opened, {"threshold": (0.4, 0.9)}, {}, 1, score)
    assert tried == [0.61]


# --- what is said aloud ---------------------------------------------------------------


def warned(nerls, grid=GRID) -> str:
    opened = in_memory()
    scores = dict(zip(grid, nerls, strict=True))
    study.run_grid(opened, grid, as_they_are, lambda t: {"nerl": scores[t]})
    return " ".join(study.warnings(opened))


def test_edge_of_the_grid_and_flat_curve():
    rising = [0.1 * k for k in range(1, 11)]
    assert "best threshold 0.94 is the highest that was tried" in warned(rising)
    assert "best threshold 0.4 is the lowest" in warned(rising[::-1])
    inside = [0.1, 0.2, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert warned(inside) == ""
    flat = [0.500, 0.501, 0.505, 0.501] + [0.5] * 6
    # it varies by 0.005, 1 % of the best
    assert "curve is flat: NERL varies by 0.0050 between thresholds 0.4 and" in warned(
        flat
    )
    assert warned([0.3], (0.5,)) == ""


def test_no_complete_trial_has_no_best():
    with pytest.raises(InputError, match="has no complete trial; run --mode=tune"):
        study.best(in_memory())


# --- one real kill --------------------------------------------------------------------

CHILD = """
import sys, time
from nisbjax.tune import storage, study

def score(threshold):
    if len(sys.argv) > 2 and threshold > 0.5:
        print("midway", flush=True)
        time.sleep(60)
    return {"nerl": 1 - (threshold - 0.7) ** 2}

with storage.reserved(sys.argv[1], alone=True):
    opened = storage.open_study(sys.argv[1], "tuning", {"prediction": "a"})
    study.release_orphans(opened, retry=False)
    study.run_grid(opened, study.GRIDS["tutorial"], list, score)
"""


def test_a_killed_study_goes_on_with_what_is_missing(tmp_path):
    database = str(tmp_path / "tuning.db")
    command = [sys.executable, "-c", textwrap.dedent(CHILD), database]
    with subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"midway\n"
        with (
            pytest.raises(InputError, match=rf"is being run by process {child.pid} on"),
            storage.reserved(database, alone=True),
        ):
            pass
        child.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True)
    with storage.reserved(database, alone=True):
        opened = storage.open_study(database, "tuning", {"prediction": "a"})
        assert done(opened) == pytest.approx(GRID)
        states = [t.state for t in opened.trials]
        # .40 and .46 were told before the kill, and once
        assert states == [TrialState.COMPLETE] * 10
