"""What a plan and a checkpoint must agree in, without a network."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.train import agreement, step
from nisbjax.train.agreement import Origin, TrainingPlan

PLAN = TrainingPlan(
    model={},
    seed=42,
    steps=6,
    accumulate=1,
    global_batch=0,
    precision="fp32",
    schedule_steps=None,
    keys={},
)
FOUND = pathlib.Path("run/checkpoints/4")
LOADER = {"seed": 42, "accumulate": 1, "global_batch": 4}


def test_words_of_reset():
    with pytest.raises(
        InputError,
        match="--reset names 'epoch'; wanted some of optimizer, schedule, step",
    ):
        Origin.parse("run", ["step", "epoch"])
    with pytest.raises(
        InputError, match="--reset goes with --checkpoint, the one to st"
    ):
        Origin.parse("", ["step"])


def test_reset_words_stand_in_their_own_order():
    origin = Origin.parse("/runs/first", ["step", "optimizer"])
    assert origin.facts() == {"path": "/runs/first", "reset": ["optimizer", "step"]}
    assert Origin.parse("", []) == Origin()


def test_the_stored_batch_stands_where_the_plan_names_none():
    assert agreement.stored_batch(PLAN, FOUND, LOADER) == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"seed": 7}, "^seed is 7, but the run of run/checkpoints/4 began with 42 and"),
        ({"accumulate": 2}, "train.accumulate is 2, but .* began with 1 and its crops"),
        ({"global_batch": 8}, "train.global_batch is 8, but .* began with 4 and its"),
    ],
)
def test_other_crops_are_refused_by_their_key(changes, message):
    with pytest.raises(InputError, match=message):
        agreement.stored_batch(dataclasses.replace(PLAN, **changes), FOUND, LOADER)


def test_moments_of_other_parameters_are_refused_by_the_first_that_differs():
    none: Any = None
    fresh = step.TrainState(none, {"stem": {"weight": np.zeros((1, 2))}}, *[none] * 4)
    agreement.require_order(
        FOUND, {"parameters": {"other": ["stem/weight 1x2"]}}, fresh
    )
    agreement.require_order(FOUND, {}, fresh)  # of a version that did not note it
    with pytest.raises(InputError, match="have nothing where .* has stem/weight 1x2"):
        agreement.require_order(FOUND, {"parameters": {"other": []}}, fresh)


def test_a_folder_without_origin_asks_nothing_of_its_checkpoint():
    agreement.require_origin(FOUND, Origin())  # which is not there
