"""What a study says of itself: how its trials drew, its best one, and what that is worth."""

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import create_trial

from nisbjax.errors import InputError
from nisbjax.skeletons import Skeletons
from nisbjax.tune import study
from nisbjax.tune.database import MADE_FROM

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


def test_the_edge_of_another_parameters_range():
    opened = optuna.create_study(direction="maximize")
    grid = [
        {"threshold": t, "low_threshold": low, "min_seed": 7}
        for t in (0.5, 0.6, 0.7)
        for low in (0.2, 0.3)
    ]
    best = {"threshold": 0.6, "low_threshold": 0.3, "min_seed": 7}
    study.run_grid(opened, grid, list, lambda p: {"nerl": 0.9 if p == best else 0.1})
    assert study.warnings(opened) == [
        (
            "the best low_threshold 0.3 is the highest that was tried; the optimum may "
            "lie beyond: extend --config.tune.space"
        )
    ]


@pytest.mark.parametrize(
    ("metric", "sd", "kept"),
    [
        ("nerl", 0.125, 0.5),  # .75 - .625 = .125, no more than the spread
        ("nerl", 0.0625, 0.75),
        ("voi", 0.125, 0.75),  # has no spread
    ],
)
def test_the_default_is_kept_where_the_best_is_hardly_better(opened, metric, sd, kept):
    opened.set_user_attr(MADE_FROM, {"metric": metric})
    nerls = {0.25: 0.5, 0.5: 0.625, 0.75: 0.75}

    def score(threshold):
        nerl = nerls[threshold]
        return {"nerl": nerl, "nerl_sd": sd, "voi_sum": 1 - nerl}

    study.run_grid(opened, tuple(nerls), list, score)
    trial, said = study.choose(opened, {"threshold": 0.5})
    assert trial.params["threshold"] == kept
    assert said == (kept == 0.5) * (
        "the default threshold 0.5 is kept: NERL 0.6250, and 0.7500 at the best, "
        "threshold 0.75, which is within one standard deviation over skeletons (0.1250)"
    )
    # One that was not tried says nothing.
    assert study.choose(opened, {"threshold": 0.6})[0].params["threshold"] == 0.75


def test_few_skeletons_for_many_parameters():
    def skeletons(count):
        ids = np.repeat(np.arange(count), 2)
        places = np.zeros((2 * count, 3), np.int64)
        return Skeletons(ids, places, places * 9.0, np.zeros((0, 2), np.int64))

    assert study.few_skeletons(skeletons(40), ["attract", "repel"]) == ""
    assert study.few_skeletons(skeletons(39), ["attract", "repel"]) == (
        "39 skeletons for 2 tuned parameter(s); wanted at least 20 for each, or the best "
        "point is luck"
    )


def test_no_complete_trial_has_no_best(opened):
    with pytest.raises(InputError, match="has no complete trial; run --mode=tune"):
        study.best(opened)
