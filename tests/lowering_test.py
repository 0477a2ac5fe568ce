"""The programs of a run lower for a GPU, on a machine that has none.

That proves that every operation has a form there; `tests/gpu` is for what they compute.
"""

import functools
import time

import jax
import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.data.loader import Batch
from nisbjax.models import build
from nisbjax.models.kernels import operations
from nisbjax.models.kernels.choice import Kernels, Recorder, Use
from nisbjax.parallel import devices
from nisbjax.train import step
from nisbjax.train.recipe import make_recipe, with_kernels


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
        jax.ShapeDtypeStruct((samples, 4), np.float32),
        jax.ShapeDtypeStruct((samples,), np.int32),
        jax.ShapeDtypeStruct((samples,), np.bool_),
    )


def lowered(jitted, *arguments):
    traced = jitted.trace(*arguments)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def state_of(config, recipe):
    abstract = build.abstract_params(config.model.to_dict())
    return jax.eval_shape(
        lambda: step.initial_state(
            jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape), abstract),
            recipe.optimizer,
            config.train.precision,
        )
    )


def test_a_training_step_with_its_augmentation(config):
    recipe = make_recipe(config)
    mesh = devices.make_mesh((("data", 2), ("space", 1)), jax.devices()[:2])
    train = step.make_train_step(recipe, mesh)
    text = lowered(train, state_of(config, recipe), batch_of(recipe, 4))
    assert "stablehlo.dot_general" in text
    # Convolutions are sums of shifted copies; the grouped one of the library is slow.
    assert "stablehlo.convolution" not in text


def kernels_of(uses):
    """The first Pallas kernel of each use, where it has one."""
    chosen = []
    for use in uses:
        candidates = operations.ALL[use.operation].candidates(use)
        pallas = [c for c in candidates if c.name == "pallas"]
        chosen.append((use, (pallas or candidates)[0]))
    return Kernels(tuple(chosen))


SEEN = pytest.mark.skipif(
    jax.__version_info__ >= (0, 11),
    reason="JAX lowers Triton's kernels for a device that it sees, since 0.11",
)


@SEEN
@pytest.mark.parametrize("channels", [16, 48])
def test_a_kernel_of_each_kind(channels):
    image, weight = (2, 8, 8, 8, channels), (3, 3, 3, channels)
    rows, mean = (2, 512, channels), (2, channels)
    hidden = (2, channels, 96), (2, 96), (96, channels)
    half, full = "float16", "float32"
    for name, shapes, kinds, static in (
        ("convolve", (image, weight), (half, full), {"moments": True}),
        ("mix", (rows, mean, *hidden, (channels,)), (half,) * 5 + (full,), {}),
        ("mix_weight_gradients", (rows, rows, mean, *hidden), (half,) * 6, {}),
    ):
        use = Use(name, shapes, kinds, tuple(sorted(static.items())))
        operation = operations.ALL[name]
        kernel = next(c for c in operation.candidates(use) if c.name == "pallas")
        arrays = [
            jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, kinds, strict=True)
        ]
        run = jax.jit(functools.partial(operation.run, kernel, **static))
        assert f'name = "{name}' in lowered(run, *arrays)


@SEEN
@pytest.mark.slow
@pytest.mark.parametrize(
    "size, kernel_size", [("S", 3), pytest.param("L", 5, marks=pytest.mark.long)]
)
def test_a_training_step_by_pallas_kernels(config, size, kernel_size):
    """Within bounds of lines and seconds: a kernel is traced and lowered once for a use.

    A network of three times the blocks has as many uses.
    """
    config.model.size, config.model.kernel_size = size, kernel_size
    config.model.channels, config.train.precision = 16, "fp16"
    recipe = make_recipe(config)
    mesh = devices.make_mesh((("data", 2), ("space", 1)), jax.devices()[:2])
    state, batch = state_of(config, recipe), batch_of(recipe, 4)

    def program(kernels):
        return step.make_train_step(with_kernels(recipe, mesh, config, kernels), mesh)

    recorder = Recorder()
    jax.eval_shape(program(recorder), state, batch)
    kernels = kernels_of(recorder.uses)
    started = time.process_time()
    text = lowered(program(kernels), state, batch)
    seconds = time.process_time() - started
    assert all(f'name = "{name}' in text for name in ("convolve", "mix", "scatter"))
    assert text.count("__gpu$xla.gpu.triton") < 2 * len(kernels.chosen)
    assert text.count("\n") < 15_000
    assert seconds < 90  # of 15 for S, 30 for L with its 125 taps
