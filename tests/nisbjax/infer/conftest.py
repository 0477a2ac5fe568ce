"""A network whose affinities are known, and an image for it."""

import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.infer.network import Network
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.prediction import predict_by
from nisbjax.store.volume import create_zarr


@pytest.fixture
def predict():
    """The stage as a mode calls it: configuration, network, image, place."""

    def run(config, network, image, target):
        return predict_by(config, network, image, target, NamedOutputs.of(config))

    return run


@pytest.fixture
def config():
    c = base_config().unlock()
    c.model.size = "S"
    c.model.channels = 2
    c.data.patch = (16, 16, 16)
    c.predict.batch_per_device = 1
    return c


def apply(params, images):
    """Six channels that know where in the window they are."""
    ramp = jnp.arange(images.shape[1], dtype=images.dtype)[None, :, None, None, None]
    return (images - 0.5) * (params + ramp)


@pytest.fixture
def network():
    facts = {"weights": "ema", "step": 7}
    return Network(
        apply, np.arange(1, 7, dtype=np.float32)[None, None, None, None], facts
    )


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "seed6" / "data.zarr" / "img"
    volume = create_zarr(
        path, shape=(10, 20, 18, 1), dtype="uint8", chunks=(8, 8, 8, 1), axes="xyzc"
    )
    values = np.random.default_rng(0).integers(0, 256, volume.shape, np.uint8)
    volume.write(..., values)
    return path
