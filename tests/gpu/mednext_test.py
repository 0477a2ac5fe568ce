"""MedNeXt on a GPU: what it computes there is what it computes on a CPU.

JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu tests/gpu        (make bench-gpu)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.data.loader import Batch
from nisbjax.models import build
from nisbjax.models.depthwise import depthwise, depthwise_transposed
from nisbjax.parallel import devices
from nisbjax.train import step
from nisbjax.train.recipe import make_recipe

pytestmark = pytest.mark.gpu

MODEL = {
    "size": "S",
    "kernel_size": 3,
    "in_channels": 1,
    "out_channels": 6,
    "channels": 16,
    "deep_supervision": False,
}


@pytest.fixture(scope="module")
def gpu():
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("no GPU here; JAX_PLATFORMS=cuda,cpu where there is one")


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def both(gpu, function, *arguments):
    """Results on the GPU and on the CPU, as numpy."""
    found = []
    with jax.default_matmul_precision("highest"):
        for device in (gpu, jax.devices("cpu")[0]):
            moved = jax.device_put(arguments, device)
            found.append(jax.device_get(jax.jit(function)(*moved)))
    return found


def assert_close(found, tolerance):
    """Largest difference as a share of each leaf's largest value."""

    def check(a, b):
        scale = max(float(np.abs(b).max()), 1e-6)
        assert float(np.abs(a - b).max()) <= tolerance * scale

    jax.tree.map(check, *found)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("convolve", [depthwise, depthwise_transposed])
def test_depthwise_and_its_gradients(gpu, kernel, stride, convolve):
    x, weight = draw(0, 2, 16, 16, 16, 8), draw(1, *(kernel,) * 3, 8)

    def objective(x, weight):
        out = convolve(x, weight, (stride,) * 3)
        return (out * out).sum(), out

    gradient = jax.grad(objective, argnums=(0, 1), has_aux=True)
    assert_close(both(gpu, gradient, x, weight), 1e-5)


@pytest.mark.parametrize("size", "SL")
def test_the_network_and_its_gradients(gpu, size):
    arguments = MODEL | {"size": size}
    params = build.initial_params(arguments, 0)
    apply = build.make_apply(arguments, jnp.float32, remat=True)

    def objective(params, images):
        logits = apply(params, images)
        return (logits**2).mean(), logits

    images = np.random.default_rng(0).random((1, 32, 32, 32, 1), np.float32)
    gradient = jax.grad(objective, argnums=(0, 1), has_aux=True)
    ours, reference = both(gpu, gradient, params, images)
    assert_close((ours[1], reference[1]), 1e-5)
    assert_close((ours[0][1], reference[0][1]), 1e-4)
    # Sums that nearly cancel keep fewer digits.
    assert_close((ours[0][0], reference[0][0]), 1e-3)


def test_predictions_in_float32_are_not_in_tf32(gpu):
    """By JAX's default their products would keep 10 bits: differences of 1e-3."""
    params = build.initial_params(MODEL, 0)
    apply = jax.jit(build.make_apply(MODEL, jnp.float32, remat=False))
    images = np.random.default_rng(0).random((1, 32, 32, 32, 1), np.float32)
    moved = (jax.device_put((params, images), d) for d in (gpu, jax.devices("cpu")[0]))
    assert_close([jax.device_get(apply(*arguments)) for arguments in moved], 1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_steps_lower_the_loss(gpu, precision):
    c = base_config().unlock()
    c.data.patch, c.model.size, c.model.channels = (32, 32, 32), "S", 16
    c.augment.profile, c.train.precision = "none", precision
    recipe = make_recipe(c)
    mesh = devices.make_mesh((("data", 1), ("space", 1)), [gpu])
    params = build.initial_params(c.model.to_dict(), 0)
    state = step.initial_state(params, recipe.optimizer, precision)
    state = jax.device_put(state, devices.replicated(mesh))
    crop = recipe.examples.crop
    labels = np.ones((2, *crop), np.int32)
    labels[:, crop[0] // 2 :] = 2
    images = np.where(labels == 1, 60, 200).astype(np.uint8)[..., None]
    scales, real = np.array([[0, 255, 0, 1]] * 2, np.float32), np.ones(2, bool)
    batch = Batch(images, labels, scales, np.arange(2, dtype=np.int32), real)
    batch = jax.device_put(batch, devices.split_batch(mesh))
    train_step = step.make_train_step(recipe, mesh)
    losses = []
    for _ in range(20):
        state, scalars = train_step(state, batch)
        losses.append(float(scalars["loss"]))
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]
