"""What a study says of itself: how its trials drew, its best one, and what that is worth."""

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from nisbjax.errors import InputError
from nisbjax.tune import study

GRID = study.GRIDS["tutorial"]


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
def test_trials_that_drew_otherwise_are_refused(opened, drawn, space, on_grid, message):
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


def test_other_ranges_are_no_other_distributions(opened):
    study.run_sampled(opened, {"threshold": (0.4, 0.9)}, {}, 2, lambda _: {"nerl": 0.5})
    study.require_like(opened, {"threshold": (0.3, 0.8)}, on_grid=False)
    study.require_like(opened, {"threshold": (0.3, 0.8)}, on_grid=True)


def warned(nerls, grid=GRID) -> str:
    opened = optuna.create_study(direction="maximize")
    scores = dict(zip(grid, nerls, strict=True))
    study.run_grid(opened, grid, list, lambda t: {"nerl": scores[t]})
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


def test_no_complete_trial_has_no_best(opened):
    with pytest.raises(InputError, match="has no complete trial; run --mode=tune"):
        study.best(opened)
