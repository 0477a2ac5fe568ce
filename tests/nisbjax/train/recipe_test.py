"""Keys to functions and numbers; what a step then does is in `step_test`."""

import jax.numpy as jnp
import pytest

from nisbjax.errors import InputError
from nisbjax.train.recipe import make_recipe


def test_a_crop_is_the_patch_and_the_ends_of_its_edges(config):
    config.data.offsets = ((1, 0, 0), (0, 1, 0), (0, 0, 3))
    rule = make_recipe(config).examples
    assert rule.patch == (4, 4, 4) and rule.crop == (5, 5, 7)  # 4 + 1, 4 + 1, 4 + 3
    # The `legacy` axes are those of the array: radii (0, 1, 0) of x, y and z as given.
    assert rule.erosion == (0, 1, 0)


@pytest.mark.parametrize("word, scaled", [("fp16", True), ("bf16", False)])
def test_float16_alone_is_scaled(config, word, scaled):
    config.train.precision = word
    assert make_recipe(config).scaled is scaled


def test_the_schedule_starts_at_the_learning_rate(config):
    config.schedule.kind, config.optimizer.lr = "constant", 0.25
    assert jnp.allclose(make_recipe(config).schedule(jnp.int32(7)), 0.25)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"train.precision": "fp8"},
            "train.precision is 'fp8'; wanted one of fp16, bf16, fp32",
        ),
        ({"data.kind": "cremi"}, "data.kind is 'cremi'; wanted one of nisb, files"),
        (
            {"model.out_channels": 6},
            "data.offsets names 3 edges, model.out_channels is 6; wanted the same",
        ),
        ({"loss.kind": "dice"}, "loss.kind is 'dice'"),
        ({"schedule.kind": "step"}, "schedule.kind is 'step'"),
    ],
)
def test_keys_that_name_no_function_are_refused(config, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        make_recipe(config)
