"""Networks of checkpoints: which weights, which type, whose parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
import small_operations

from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.infer.network import load_network, untrained_network
from nisbjax.models import build
from nisbjax.models.kernels import measure, on_device
from nisbjax.models.kernels.choice import Candidate


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


def test_a_gpu_takes_the_kernels_for_its_batch_and_window(monkeypatch, tmp_path):
    """A linear network of one operation; a GPU is pretended, and nothing measured."""
    small_networks.use(small_networks.LINEAR, monkeypatch.setattr)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def choose(operations, uses, known, *, pallas):
        asked.append((list(uses), pallas))
        found = {use: Candidate("pallas") for use in uses}
        return measure.Measured(found, found)

    monkeypatch.setattr(measure, "choose", choose)
    c = base_config()
    network = untrained_network(c.predict, c.model.to_dict(), 0)
    images = jnp.ones((2, 4, 4, 4, 1))
    expected = network.apply_to(2, (4, 4, 4))(network.params, images)
    assert not asked
    monkeypatch.setattr(on_device, "on_gpu", lambda: True)
    small_operations.PALLAS.ran.clear()
    logits = network.apply_to(2, (4, 4, 4))(network.params, images)
    assert asked == [([small_operations.use(2, 4, 4, 4, 1, power=1)], False)]
    assert small_operations.PALLAS.ran == ["xla", "pallas"]  # traced, and run
    np.testing.assert_array_equal(logits, expected)


def test_kernels_that_there_are_none_of_are_refused(config):
    config.model.kernels = "pallas"
    with pytest.raises(InputError, match="'pallas', but the devices are cpu"):
        untrained_network(config.predict, config.model.to_dict(), 0)


def test_of_a_pyramid_the_finest_logits_are_the_answer(config):
    config.model.deep_supervision = True
    network = untrained_network(config.predict, config.model.to_dict(), 0)
    asked = jax.ShapeDtypeStruct((1, 32, 16, 16, 1), jnp.float32)
    logits = jax.eval_shape(network.apply, network.params, asked)
    assert logits.shape == (1, 32, 16, 16, 6)
