"""Keys to functions and numbers; what a step then does is in `step_test`."""

import jax
import jax.numpy as jnp
import pytest
import small_operations

from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.models.kernels import measure, on_device
from nisbjax.models.kernels.choice import Candidate, Kernels
from nisbjax.parallel import devices
from nisbjax.train import recipe
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


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU is pretended, and nothing measured: the last candidate wins."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(on_device, "on_gpu", lambda: True)
    asked = []

    def choose(operations, uses, known, *, pallas):
        asked.append(list(uses))
        last = {use: operations[use.operation].candidates(use)[-1] for use in uses}
        return measure.Measured(last, last)

    monkeypatch.setattr(measure, "choose", choose)
    return asked


@pytest.mark.parametrize("accumulate", [1, 2])
def test_kernels_are_chosen_for_what_a_device_has_forward_and_backward(
    config, gpu, monkeypatch, accumulate
):
    """Of a micro-batch of 8 on 4 devices, each has 2 samples."""
    operation = small_operations.PALLAS

    def make_apply(arguments, dtype, *, remat, space, kernels):
        @jax.custom_vjp
        def layer(x, weight):
            return kernels.run(operation, x, weight, power=1)

        def forward(x, weight):
            return kernels.run(operation, x, weight, power=2), weight

        def backward(weight, g):
            return kernels.run(operation, g, weight, power=3), weight

        layer.defvjp(forward, backward)
        return lambda params, images: layer(images, params)

    monkeypatch.setattr(build, "make_apply", make_apply)
    weight = jax.ShapeDtypeStruct((1,), "float32")
    monkeypatch.setattr(build, "abstract_params", lambda arguments: weight)
    config.train.accumulate = accumulate
    mesh = devices.make_mesh((("data", 4),))
    kernels = recipe.choose_kernels(mesh, config, 8, None)
    # In training what is kept for the gradient, and it; in validation the result alone.
    uses = [small_operations.use(2, 4, 4, 4, 1, power=power) for power in (2, 3, 1)]
    assert gpu == [uses]
    assert kernels == Kernels(tuple((use, Candidate("pallas")) for use in uses))
    made = recipe.with_kernels(make_recipe(config), mesh, config, kernels)
    assert made != make_recipe(config)


def test_without_a_gpu_a_recipe_is_what_it_was(config):
    mesh = devices.make_mesh((("data", 4),))
    assert recipe.choose_kernels(mesh, config, 8, None) is None
    made = make_recipe(config)
    assert recipe.with_kernels(made, mesh, config, None) is made
    config.model.kernels = "pallas"
    with pytest.raises(
        InputError, match="model.kernels is 'pallas', but the devices are"
    ):
        recipe.make_recipe_on(mesh, config)
