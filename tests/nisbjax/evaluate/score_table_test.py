"""Scores in columns: those that a row has, as wide as they are."""

from nisbjax.evaluate import score_table


def test_columns_are_those_that_a_row_has():
    rows = {
        "skeletons": {"nerl": 0.5, "voi_sum": 1.25, "n_splits": 3, "coverage": -0.0},
        "labels": {"adapted_rand_error": 0.1, "voi_sum": 2.0, "threshold": None},
    }
    assert score_table.text("seed6", rows).split("\n") == [
        "seed6        NERL  Rand error   VOI  splits  on bg",
        "skeletons   0.500           -  1.25       3   0.0%",
        "labels          -       0.100  2.00       -      -",
    ]


def test_columns_that_are_asked_for_are_there_without_values():
    said = score_table.text("cube", {"a": {"nerl": 1.0}}, ("nerl", "threshold"))
    assert said.split("\n")[1].split() == ["a", "1.000", "-"]
