"""Draws: a function of seed and trial."""

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from nisbjax.tune import samplers


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
