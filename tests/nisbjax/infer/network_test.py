"""Networks of checkpoints: which weights, which type, whose parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.infer.network import load_network, untrained_network
from nisbjax.models import build


@pytest.fixture
def config():
    c = base_config()
    c.model.update({"size": "S", "channels": 1})
    return c


def load(config, path):
    return load_network(config.predict, config.model.to_dict(), path)


def test_a_checkpoints_weights_are_found_by_name(tmp_path, config):
    arguments = config.model.to_dict()
    like = build.abstract_params(arguments)
    params, averaged = (
        jax.tree.map(lambda leaf, v=value: np.full(leaf.shape, v, leaf.dtype), like)
        for value in (0.5, 0.25)
    )
    model = build.describe(arguments)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(
        7,
        {
            "params": params,
            "ema": averaged,
            "optimizer": {"count": np.ones(1)},
        },
        {"step": {"step": 7}, "loader": {}, "model": model, "config": {}},
    )
    checkpoints.wait()
    checkpoints.close()
    ema = load(config, tmp_path)
    assert (ema.facts["weights"], ema.facts["step"]) == ("ema", 7)
    config.predict.weights = "raw"
    raw = load(config, tmp_path / "checkpoints" / "7")
    for network, value in ((raw, 0.5), (ema, 0.25)):
        assert all((leaf == value).all() for leaf in jax.tree.leaves(network.params))
    assert raw.facts["params_sha256"] != ema.facts["params_sha256"]
    config.predict.precision = "fp8"
    with pytest.raises(InputError, match="predict.precision is 'fp8'"):
        load(config, tmp_path)
    config.model.size = "B"
    with pytest.raises(InputError, match="is of another model: model.size S"):
        load(config, tmp_path)


def test_an_untrained_network_is_a_function_of_the_seed(config):
    model = config.model.to_dict()
    one, same, other = (
        untrained_network(config.predict, model, seed) for seed in (1, 1, 2)
    )
    assert one.facts == same.facts != other.facts
    assert (one.facts["weights"], one.facts["step"], one.in_channels) == (
        "untrained", 0, 1,
    )  # fmt: skip


def test_of_a_pyramid_the_finest_logits_are_the_answer(config):
    config.model.deep_supervision = True
    network = untrained_network(config.predict, config.model.to_dict(), 0)
    asked = jax.ShapeDtypeStruct((1, 32, 16, 16, 1), jnp.float32)
    logits = jax.eval_shape(network.apply, network.params, asked)
    assert logits.shape == (1, 32, 16, 16, 6)
