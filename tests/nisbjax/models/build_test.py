"""Initial parameters: torch's default distribution, by name and seed alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.models import build

MODEL = {
    "size": "S",
    "kernel_size": 5,
    "in_channels": 8,
    "out_channels": 12,
    "channels": 8,
    "deep_supervision": True,
}


@pytest.fixture(scope="module")
def params():
    return build.initial_params(MODEL, 42)


def affine(tree, path=()):
    """Every layer that has a weight and a bias, with its path."""
    if "weight" in tree:
        yield path, tree["weight"], tree["bias"]
    else:
        for name, part in tree.items():
            yield from affine(part, (*path, name))


def fan_in(path):
    """torch: (inputs / groups) * taps; of a transposed layer (outputs / groups) * taps."""
    level = int(path[0][-1]) if path[0][-1].isdigit() else 4
    width = 8 << level
    if path[0] == "stem":
        return 8  # image channels
    if path[-1] == "conv1":
        return 125
    if path[0].startswith("out_"):
        return 12
    # Up blocks go from 2 * width to width, all others start from width.
    before = 2 * width if path[0].startswith("up_") else width
    # Size S expands by 2.
    return {"conv2": before, "conv3": 2 * before, "res_conv": width}[path[-1]]


def test_weights_and_biases_are_uniform_in_torchs_bound(params):
    layers = list(affine(params))
    assert len(layers) == 9 * 4 + 8 * 5 + 1 + 5  # stages, down and up, stem, heads
    for path, weight, bias in layers:
        if path[-1] == "norm":
            assert (weight == 1).all() and (bias == 0).all()
            continue
        bound = 1 / math.sqrt(fan_in(path))
        values = np.concatenate([weight.ravel(), bias.ravel()])
        assert values.dtype == np.float32
        assert np.abs(values).max() <= bound
        # Of n uniform draws the largest is below (1 - d) bound with probability
        # (1 - d)^n: with d = 20 / n that is e^-20.
        assert np.abs(values).max() > (1 - min(20 / values.size, 0.95)) * bound
        # Variance bound^2 / 3; that of a square is 4/45 bound^4, so the mean square of n
        # draws has the relative spread sqrt(4/5 / n).
        ratio = np.mean(values**2) * 3 / bound**2
        assert abs(ratio - 1) < 5 * math.sqrt(0.8 / values.size), path
        assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size), path


def test_values_depend_on_seed_and_name_alone(params):
    def equal(a, b):
        return jax.tree.map(np.array_equal, a, b)

    assert all(jax.tree.leaves(equal(params, build.initial_params(MODEL, 42))))
    other = build.initial_params(MODEL, 43)
    assert not np.array_equal(params["stem"]["weight"], other["stem"]["weight"])
    # Two layers of one shape differ; so do the blocks of a stage.
    down, up = params["down_0"]["conv1"], params["enc_block_0"]["conv1"]
    assert not np.array_equal(down["weight"], up["weight"][0])
    assert not np.array_equal(up["weight"][0], up["weight"][1])
    # Without heads on the coarser levels the rest stays as it was.
    fewer = build.initial_params(MODEL | {"deep_supervision": False}, 42)
    assert fewer.keys() == params.keys() - {f"out_{i}" for i in range(1, 5)}
    assert all(jax.tree.leaves(equal(fewer, {name: params[name] for name in fewer})))


def test_apply_gives_logits_or_their_pyramid():
    images = jax.ShapeDtypeStruct((1, 16, 16, 16, 8), np.float32)
    for supervised in (False, True):
        arguments = MODEL | {"deep_supervision": supervised}
        apply = build.make_apply(arguments, np.float32, remat=False)
        shapes = jax.eval_shape(apply, build.abstract_params(arguments), images)
        found = [s.shape for s in shapes] if supervised else [shapes.shape]
        wanted = [(1, *(16 >> i,) * 3, 12) for i in range(5 if supervised else 1)]
        assert found == wanted


def test_a_checkpoint_describes_what_shapes_depend_on():
    described = build.describe(MODEL | {"remat": True, "seed": 3})
    assert described == MODEL


def test_crops_that_heads_cannot_share_are_refused():
    """96, 48 and 24 planes are split over four; of 12 and 6, whole, 6 are not shared."""
    arguments = {"size": "S", "kernel_size": 3, "in_channels": 1, "out_channels": 6}
    arguments |= {"channels": 2, "deep_supervision": False}
    build.require_parts(arguments, 96, 4)
    arguments["deep_supervision"] = True
    build.require_parts(arguments, 128, 4)
    with pytest.raises(
        InputError, match="4 devices .* cannot share the 6 planes of the"
    ):
        build.require_parts(arguments, 96, 4)
    with pytest.raises(InputError, match="a crop has 36 planes in x at level 1"):
        build.require_parts(arguments, 72, 4)


def test_equal_arguments_give_the_same_function():
    """What was compiled for it is found again; and only for it."""

    def made(dtype=jnp.float32, remat=False, **changes):
        return build.make_apply(MODEL | changes, dtype, remat=remat)

    first = made()
    assert made(jnp.dtype("float32")) is first
    assert made(remat="none") is first
    others = [made(jnp.bfloat16), made(remat="block"), made(out_channels=7)]
    others.append(made(deep_supervision=not MODEL["deep_supervision"]))
    assert len({first, *others}) == 5
    # Nobody's changes of a tree of parameters reach the next one.
    build.abstract_params(MODEL).clear()
    assert build.abstract_params(MODEL)
