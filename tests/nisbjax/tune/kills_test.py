"""Killed at any write of its storage, a study ends as if nobody had been killed."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from nisbjax.tune import study

SPACE = {"threshold": (0.4, 0.94), "low_threshold": (0.1, 0.9), "min_size": (1, 1000)}
AT_MOST = {"low_threshold": "threshold"}
FIRST = {"threshold": 0.75, "low_threshold": 0.5}
TRIALS = 14  # TPE draws at random before its 11th
WRITES = (
    *("create_new_trial", "set_trial_param", "set_trial_user_attr"),
    *("set_trial_system_attr", "set_trial_state_values"),
)


class Killed(BaseException):
    """What no `except Exception` holds up."""


class Fragile(InMemoryStorage):
    """A storage whose process is killed before or after its n-th write."""

    def __init__(self, fatal: int, after: bool):
        super().__init__()
        self.writes, self.fatal, self.after = 0, fatal, after

    def write(self, method, arguments, options):
        self.writes += 1
        if self.fatal and self.writes >= self.fatal + self.after:
            raise Killed  # the dead write no more
        result = method(*arguments, **options)
        if self.writes == self.fatal:
            raise Killed
        return result


def _counted(name):
    method = getattr(InMemoryStorage, name)

    def write(self, *arguments, **options):
        return self.write(method.__get__(self), arguments, options)

    return write


for _name in WRITES:
    setattr(Fragile, _name, _counted(_name))


def score(point):
    return {
        "nerl": 1 - abs(point["threshold"] - 0.7) - abs(point["min_size"] - 50) / 1e4
    }


def tune(storage, kind, trials=TRIALS):
    """As one start of the stage does it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = optuna.create_study(
        storage=storage,
        study_name="tuning",
        direction="maximize",
        load_if_exists=True,
        sampler=study.sampler(kind, 7),
    )
    study.release_orphans(opened, retry=True)
    study.run_sampled(opened, SPACE, FIRST, trials, score, AT_MOST)
    return opened


def points(opened) -> list[dict[str, float]]:
    return [trial.params for trial in study.complete(opened)]


@pytest.fixture(scope="module")
def undisturbed():
    found = {}
    for kind in ("random", "qmc", "tpe"):
        storage = Fragile(0, True)
        found[kind] = points(tune(storage, kind)), storage.writes
    return found


@pytest.mark.parametrize("kind", ["random", "qmc", "tpe"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_killed_at_any_write_it_ends_with_the_same_points(undisturbed, kind, data):
    wanted, writes = undisturbed[kind]
    assert len({tuple(point.values()) for point in wanted}) == TRIALS
    fatal = data.draw(st.integers(1, writes))
    storage = Fragile(fatal, data.draw(st.booleans()))
    with pytest.raises(Killed):
        tune(storage, kind)
    storage.fatal = 0
    opened = tune(storage, kind)
    assert points(opened) == wanted
    assert len(opened.trials) == TRIALS


@pytest.mark.parametrize("kind", ["random", "qmc", "tpe"])
def test_started_again_for_more_it_goes_on(undisturbed, kind):
    wanted, _ = undisturbed[kind]
    storage = InMemoryStorage()
    for trials in (1, 6, TRIALS):
        opened = tune(storage, kind, trials)
    assert points(opened) == wanted
    assert points(opened)[0] == pytest.approx(
        {**FIRST, "min_size": wanted[0]["min_size"]}
    )
    assert all(p["low_threshold"] <= p["threshold"] for p in wanted)


GRID = (0.4, 0.5, 0.6, 0.7)


def tune_grid(storage, score=lambda t: {"nerl": 1 - t, "voi_sum": t}):
    opened = optuna.create_study(
        storage=storage, study_name="tuning", direction="maximize", load_if_exists=True
    )
    study.release_orphans(opened, retry=True)
    study.run_grid(opened, GRID, list, score)
    return opened


@pytest.mark.parametrize("after", [False, True])
def test_a_grid_killed_at_each_write_has_the_same_trials(after):
    storage = Fragile(0, after)
    wanted = [(t.number, t.params, t.value) for t in tune_grid(storage).trials]
    assert [params["threshold"] for _, params, _ in wanted] == list(GRID)
    for fatal in range(1, storage.writes + 1):
        killed = Fragile(fatal, after)
        with pytest.raises(Killed):
            tune_grid(killed)
        killed.fatal = 0
        found = tune_grid(killed).trials
        assert [(t.number, t.params, t.value) for t in found] == wanted
        assert all(t.user_attrs["voi_sum"] == t.params["threshold"] for t in found)


@pytest.mark.parametrize("ended", [KeyboardInterrupt, SystemExit])
def test_a_grid_ended_by_a_signal_goes_on_with_the_same_numbers(ended):
    """In a trial, or in the decode before it: Optuna is told of none that is left."""
    wanted = [(t.number, t.params) for t in tune_grid(InMemoryStorage()).trials]
    storage = InMemoryStorage()

    def signalled(threshold):
        if threshold == 0.5:
            raise ended
        return {"nerl": 1 - threshold, "voi_sum": threshold}

    with pytest.raises(ended):
        tune_grid(storage, signalled)
    found = tune_grid(storage)
    assert [(t.number, t.params) for t in found.trials] == wanted
    assert study.best(found).number == 0
