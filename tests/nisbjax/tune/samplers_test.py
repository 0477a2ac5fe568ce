"""Draws: a function of seed and trial, whoever asks and however often it is killed."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage

from nisbjax.tune import samplers, study

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
        if self.writes == self.fatal and not self.after:
            raise Killed
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


def test_another_seed_draws_other_points():
    for kind in ("random", "qmc"):
        one, other = (samplers.unit_point(kind, seed, 3) for seed in (1, 2))
        assert not (one == other).any()
        assert (one == samplers.unit_point(kind, 1, 3)).all()
        assert not (one == samplers.unit_point(kind, 1, 4)).any()


def test_qmc_fills_each_axis_evenly():
    # of 8 points of a Sobol sequence each eighth of an axis has one
    found = [samplers.unit_point("qmc", 5, k) for k in range(8)]
    for axis in range(5):
        assert sorted(int(8 * point[axis]) for point in found) == list(range(8))


def test_shares_of_a_range():
    assert samplers.stretch(0.25, FloatDistribution(0.4, 0.8)) == pytest.approx(0.5)
    # 10^(-1 + 0.5 * 2) = 1
    assert samplers.stretch(0.5, FloatDistribution(0.1, 10, log=True)) == pytest.approx(
        1
    )
    # four values, a quarter each: -0.5 .. 3.5
    whole = IntDistribution(0, 3)
    assert [samplers.stretch(x, whole) for x in (0.0, 0.24, 0.26, 0.99)] == [0, 0, 1, 3]
    # from 0.5 to 1000.5: half of the decades is at sqrt(0.5 * 1000.5) = 22.4
    assert samplers.stretch(0.5, IntDistribution(1, 1000, log=True)) == 22
