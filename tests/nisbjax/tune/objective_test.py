"""What a study is told of a trial's scores, and what older studies were told."""

import math

import pytest

from nisbjax.errors import InputError
from nisbjax.evaluate.truth import Truth
from nisbjax.tune import objective, study
from nisbjax.tune.database import MADE_FROM

SCORE = {"nerl": 0.5, "nerl_mean": 0.625, "voi_sum": 1.25, "adapted_rand_error": 0.25}


def test_every_objective_is_maximised():
    found = {name: objective.value_of(name, SCORE) for name in objective.OBJECTIVES}
    assert found == {
        "nerl": 0.5,
        "nerl_mean": 0.625,
        "voi": -1.25,
        "adapted_rand": -0.25,
    }
    assert objective.score_of("voi", -1.25) == 1.25
    assert math.isnan(objective.value_of("voi", {"nerl": 0.5}))


@pytest.mark.parametrize(
    "word, skeleton, settled, labels",
    [
        ("auto", "s.pkl", "nerl_mean", False),
        ("auto", "", "adapted_rand", True),
        ("adapted_rand", "s.pkl", "adapted_rand", True),
        ("voi", "s.pkl", "voi", False),
        ("voi", "", "voi", True),
        ("nerl", "", "nerl", False),
    ],
)
def test_what_auto_becomes_and_what_is_compared_with(word, skeleton, settled, labels):
    assert objective.settled(word, skeleton) == settled
    assert objective.needs_labels(word, skeleton) == labels


@pytest.mark.parametrize(
    "word, label, message",
    [
        (
            "nerl",
            "seg.npy",
            "objective is nerl, and data.val.skeleton is empty; .* or tune by .* with --conf",
        ),
        (
            "adapted_rand",
            "",
            "is adapted_rand, .* data.val.label is empty; .* --config.data.val.label=FILE",
        ),
    ],
)
def test_an_objective_without_its_truth(word, label, message):
    with pytest.raises(InputError, match=message):
        objective.require_truth(word, Truth("", label, (9.0, 9.0, 9.0)))


def test_a_study_without_the_word_is_one_of_nerl(opened):
    assert objective.objective_of(opened) == "nerl"
    opened.set_user_attr(MADE_FROM, {"prediction": "ab"})
    assert objective.objective_of(opened) == "nerl"
    opened.set_user_attr(MADE_FROM, {"metric": "voi"})
    assert objective.objective_of(opened) == "voi"


def test_a_study_of_voi_takes_the_lowest(opened):
    opened.set_user_attr(MADE_FROM, {"metric": "voi"})
    scores = {
        0.5: {"nerl": 0.75, "voi_sum": 2.0},
        0.6: {"nerl": 0.25, "voi_sum": 1.0},
        0.7: {"nerl": 0.5, "voi_sum": 3.0},
    }
    study.run_grid(opened, tuple(scores), list, lambda t: scores[t])
    assert [t.value for t in opened.trials] == [-2, -1, -3]
    top = study.best(opened)
    assert (top.params, top.user_attrs["nerl"]) == ({"threshold": 0.6}, 0.25)
