"""Which spaces can be tuned over: ranges, grids by name and by number, and the refusals."""

import math

import pytest

from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.tune import space, stage, study


@pytest.fixture
def config():
    return base_config()


def test_a_space_of_a_sampler(config):
    config.tune.sampler, config.tune.trials = "tpe", 7
    config.decode.method, config.decode.low_threshold = "grow", 0.3
    config.tune.space = (("low_threshold", 0.2, 0.6), ("threshold", 0.5, 0.9))
    found = stage.check(config.tune, config.decode)
    assert list(found.ranges.items()) == [
        ("threshold", (0.5, 0.9)),
        ("low_threshold", (0.2, 0.6)),
    ]
    assert not found.on_grid and found.trials == 7
    assert found.configured == {"threshold": 0.75, "low_threshold": 0.3}
    assert found.at_most == {"low_threshold": "threshold"}
    assert found.widest == {"threshold": 0.9, "low_threshold": 0.2}


def test_nothing_named_is_the_methods_own_space(config):
    found = stage.check(config.tune, config.decode)
    assert found.ranges == {"threshold": (0.4, 0.94)}
    assert found.points == list(study.GRIDS["tutorial"])


def test_a_chain_is_tuned_over_its_two_biases(config):
    config.decode.method = "chain"
    found = stage.check(config.tune, config.decode)
    assert found.ranges == {"attract": (0.0, 0.4), "repel": (0.2, 1.0)}
    assert len(found.points) == 15 and found.configured in found.points
    assert found.points[1] == {"attract": 0.0, "repel": 0.4}
    config.tune.sampler = "tpe"
    assert not stage.check(config.tune, config.decode).on_grid
    config.tune.space = (("threshold", 0.4, 0.9),)
    with pytest.raises(
        InputError, match="threshold, which decode.method=chain does not"
    ):
        stage.check(config.tune, config.decode)
    config.decode.method = "chain3"
    assert stage.check(config.tune, config.decode).ranges == {"threshold": (0.4, 0.9)}


def test_named_grids(config):
    assert space.grid(config.tune) == study.GRIDS["tutorial"]
    config.tune.grid = "banis"
    assert len(space.grid(config.tune)) == 13
    config.tune.grid = "bannis"
    with pytest.raises(
        InputError, match="tune.grid is 'bannis'; wanted one of tutorial"
    ):
        space.grid(config.tune)
    config.tune.grid = ""
    config.tune.thresholds = (0.5, 1.5)
    with pytest.raises(InputError, match="wanted one or more numbers from 0 to 1"):
        space.grid(config.tune)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"thresholds": (0.5, float("nan"))},
            r"tune.thresholds is \(0.5, nan\); wanted one or more numbers from 0 to 1",
        ),
        ({"thresholds": ("half",)}, r"tune.thresholds is \('half',\); wanted"),
        ({"sampler": "grdi"}, "tune.sampler is 'grdi'; wanted one of grid, tpe"),
        (
            {"objective": "ned"},
            "tune.objective is 'ned'; wanted one of auto, nerl_mean",
        ),
        ({"sampler": "tpe", "trials": 0}, "tune.trials is 0; wanted 1 or more"),
        (
            {"sampler": "tpe", "space": (("min_size", 0, 9),)},
            r"tune.space names \['min_size'\]; wanted .* threshold at least",
        ),
        (
            {"sampler": "tpe", "space": (("threshold", 0.4, 0.9), ("minsize", 0, 9))},
            "names minsize, which decode.method=affinity_cc does not take; .* min_size",
        ),
        (
            {"sampler": "tpe", "space": (("threshold", 0.4, 0.9),)},
            "low_threshold begins at 0.5 and threshold in tune.space at 0.4; wanted low",
        ),
        ({"space": (("threshold", 0.4),)}, r"tune.space holds \('threshold', 0.4\)"),
        ({"space": (3,)}, "tune.space holds 3; wanted"),
        ({"space": (("threshold", 0.9, 0.4),)}, "tune.space holds .*0.9, 0.4"),
        ({"space": (("threshold", 0.4, math.nan),)}, "tune.space holds .*0.4, nan"),
        ({"space": (("threshold", True, True),)}, "tune.space holds .*True, True"),
        (
            {"space": (("threshold", 0.4, 1.5),)},
            "tune.space's threshold is 1.5; wanted a number in .0, 1.",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("threshold", 0.5, 0.6))},
            "tune.space names threshold twice; wanted it once",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0, 2**41, 3))},
            "tune.space's min_size is 2199023255552; wanted at most 1099511627776",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0, 9, 10**9))},
            "make a grid of 10000000000 points; wanted at most 10000",
        ),
        ({"storage": "."}, "tune.storage is ., a folder; name another file"),
        ({"space": (("threshold", "a", 0.9),)}, "tune.space holds .*'a', 0.9"),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0.5, 9.0))},
            r"tune.space has min_size from \(0.5, 9.0\); wanted whole numbers",
        ),
        (
            {"space": (("threshold", 0.4, 0.9), ("min_size", 0, 9))},
            "tune.sampler=grid wants a fourth number, how many values",
        ),
    ],
)
def test_what_cannot_be_tuned_over(config, changes, message):
    if "low_threshold" in message:
        config.decode.method = "grow"
    config.tune.update(changes)
    with pytest.raises(InputError, match=message):
        stage.check(config.tune, config.decode)
