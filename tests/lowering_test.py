"""The programs of a run lower for a GPU, on a machine that has none.

That proves that every operation has a form there; `tests/gpu` is for what they compute.
"""

import jax
import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.data.loader import Batch
from nisbjax.models import build
from nisbjax.parallel import devices
from nisbjax.train import step
from nisbjax.train.recipe import make_recipe


@pytest.fixture
def config():
    c = base_config().unlock()
    c.data.patch = (32, 32, 32)
    c.model.size, c.model.channels = "S", 4
    return c


def batch_of(recipe, samples):
    crop = recipe.examples.crop
    return Batch(
        jax.ShapeDtypeStruct((samples, *crop, 1), np.uint8),
        jax.ShapeDtypeStruct((samples, *crop), np.int32),
        jax.ShapeDtypeStruct((samples, 2), np.float32),
        jax.ShapeDtypeStruct((samples,), np.int32),
        jax.ShapeDtypeStruct((samples,), np.bool_),
    )


def lowered(jitted, *arguments):
    traced = jitted.trace(*arguments)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_a_training_step_with_its_augmentation(config):
    recipe = make_recipe(config)
    mesh = devices.make_mesh((("data", 2), ("space", 1)), jax.devices()[:2])
    abstract = build.abstract_params(config.model.to_dict())
    state = jax.eval_shape(
        lambda: step.initial_state(
            jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape), abstract),
            recipe.optimizer,
            config.train.precision,
        )
    )
    text = lowered(step.make_train_step(recipe, mesh), state, batch_of(recipe, 4))
    assert "stablehlo.dot_general" in text
    # Convolutions are sums of shifted copies; the grouped one of the library is slow.
    assert "stablehlo.convolution" not in text
