"""A grid: each value COMPLETE exactly once, whatever was left, and after a real kill."""

import math
import signal
import subprocess
import sys
import textwrap

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from nisbjax.errors import InputError
from nisbjax.tune import storage, study

GRID = study.GRIDS["tutorial"]
SPACE = {"threshold": optuna.distributions.FloatDistribution(0.0, 1.0)}


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


def test_each_value_once_then_nothing(opened):
    assert study.run_grid(opened, GRID, as_they_are, parabola) == 10
    assert done(opened) == pytest.approx(GRID)
    assert study.run_grid(opened, GRID, as_they_are, parabola) == 0
    assert len(opened.trials) == 10
    top = study.best(opened)
    assert top.params == {"threshold": 0.70}
    assert top.user_attrs["voi_sum"] == 2.0
    assert top.user_attrs["n_splits"] == 3


def test_a_larger_grid_evaluates_what_is_new_in_one_pass(opened):
    study.run_grid(opened, GRID, as_they_are, parabola)
    passes = []

    def prepare(thresholds):
        passes.append(thresholds)
        return thresholds

    # 0.46000000001 is 0.46 to 1e-6
    wider = (*GRID[2:], 0.46000000001, 0.34, 0.97)
    assert study.run_grid(opened, wider, prepare, parabola) == 2
    assert passes == [[0.34, 0.97]]


def test_a_failed_trial_is_FAIL_with_its_error_and_comes_back(opened):

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


def test_a_failed_pass_fails_every_trial(opened):

    def prepare(thresholds):
        raise MemoryError("affinities")

    with pytest.raises(MemoryError):
        study.run_grid(opened, GRID, prepare, parabola)
    errors = {t.user_attrs["error"] for t in opened.trials}
    assert errors == {"MemoryError: affinities"}
    assert {t.state for t in opened.trials} == {TrialState.FAIL}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_never_a_score(opened, value):
    with pytest.raises(InputError, match="its NERL is"):
        study.run_grid(opened, (0.5,), as_they_are, lambda _: {"nerl": value})
    assert study.complete(opened) == []
    assert study.missing(opened, (0.5,)) == [0.5]


@given(st.data())
@settings(max_examples=15)
def test_whatever_an_earlier_run_left_each_value_completes_once(data):
    opened = optuna.create_study(direction="maximize")
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
