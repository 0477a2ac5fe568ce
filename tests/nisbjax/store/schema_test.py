"""Kinds of values: what each takes, what it refuses, and where in a record it says so."""

import math

import pytest

from nisbjax.store import schema

HUGE = 10**5000


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (schema.number(), [0, -1.5], [math.nan, math.inf, "1", True, None, 10**400]),
        (schema.number(0, 1), [0, 1, 0.5], [-0.1, 1.1]),
        (schema.number(0, above=True), [1e-300, 9], [0, -1]),
        (schema.number(0, 1, below=True), [0, 0.999], [1]),
        (schema.whole(), [0, 2**63 - 1], [-1, 1.0, True, "1", 2**63, HUGE]),
        (schema.whole(-2, 3), [-2, 3], [-3, 4]),
        (schema.text(), ["", "ä"], [b"a", 1, None, "\ud800"]),
        (schema.boolean(), [True, False], [0, "true"]),
        (schema.nothing(), [None], [0, ""]),
        (schema.anything(), [None, [], HUGE], []),
        (schema.one_of("a", 1), ["a", 1], [True, 1.0, "b"]),
        (schema.list_of(schema.whole()), [[], [1], (2, 3)], ["12", [1, "2"], {}]),
        (schema.list_of(schema.whole(), 2), [[1, 2]], [[1], [1, 2, 3]]),
        (schema.table_of(schema.text()), [{}, {"a": "b"}], [[], {"a": 1}, {1: "b"}]),
        (schema.either(schema.nothing(), schema.text()), [None, "a"], [1]),
        (schema.record({"a": schema.whole()}), [{"a": 1}, {"a": 1, "b": 2}], [{}, []]),
        (schema.record({"a": schema.optional(schema.whole())}), [{}], [{"a": "1"}]),
    ],
)
def test_what_a_kind_takes(kind, good, bad):
    assert [value for value in good if not kind.holds(value)] == []
    assert [value for value in bad if kind.holds(value)] == []


@pytest.mark.parametrize(
    "kind, value, at, came, wanted",
    [
        (schema.number(0, 1), 2, "", "is 2", "a number in [0, 1]"),
        (schema.number(0), -1, "", "is -1", "a finite number, 0 or more"),
        (schema.one_of("", "average"), "mean", "", "is 'mean'", 'one of "", average'),
        (schema.whole(1, 8), 0, "", "is 0", "a whole number, 1 to 8"),
        (schema.whole(), None, "", "is null", "a whole number, 0 or more"),
        (schema.list_of(schema.whole(), 2), 5, "", "is 5",
         "a list (2 of a whole number, 0 or more)"),
        (schema.list_of(schema.text()), ["a", 1], "[1]", "is 1", "text"),
        (schema.record({"a": {"b": schema.text()}}), {"a": {"b": 1}}, "a.b", "is 1", "text"),
        (schema.record({"a": schema.text()}), {}, "a", "is missing", "text"),
        (schema.record({"a": schema.list_of(schema.text())}), {"a": [1]}, "a[0]", "is 1",
         "text"),
        (schema.table_of(), {3: 1}, "", "has the key 3", "keys of text"),
        # Of two kinds the one that comes further is the one that was meant.
        (schema.either({"a": schema.text()}, schema.nothing()), {"a": 1}, "a", "is 1",
         "text"),
    ],
)  # fmt: skip
def test_what_is_said(kind, value, at, came, wanted):
    assert kind.problem(value) == schema.Problem(at, came, wanted)


def test_long_values_are_cut():
    assert schema.shown(HUGE) == "a number of thousands of digits"
    assert len(schema.shown("a" * 1000)) < 70
