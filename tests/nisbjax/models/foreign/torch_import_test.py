"""Foreign weights: parity with the original's recorded values, and what is refused."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nisbjax.errors import InputError
from nisbjax.models.foreign import torch_import, torch_names
from nisbjax.models.mednext import MedNeXt

OUTPUTS = ["S_k3", "B_k3", "M_k3", "L_k3", "L_k5"]  # their gradients: make test-slow
RECORDED = pathlib.Path(__file__).parents[1] / "recorded"
# Compiling takes longer than running here, and as long again with LLVM's optimisation.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def compiled(function, *arguments):
    return (
        jax.jit(function).lower(*arguments).compile(compiler_options=QUICK)(*arguments)
    )


def golden(shared_data, case, original_weights):
    """Recorded values, our model with the same weights, and the image [b x y z c]."""
    recorded = np.load(shared_data / "mednext_golden" / f"{case}.npz")
    size, kernel, inputs, outputs = re.match(
        r"(\w)_k(\d)_in(\d+)_out(\d+)", case
    ).groups()
    heads = 5 if case.endswith("_ds") else 1
    weights = original_weights(size, int(kernel), int(inputs), int(outputs), heads)
    image = np.random.default_rng(1234).random((1, int(inputs), 32, 32, 32), np.float32)
    graph, state = nnx.split(torch_import.to_model(weights))
    return recorded, graph, state, jnp.asarray(image.transpose(0, 2, 3, 4, 1))


def assert_logits(recorded, pyramid, strides=(2, 1, 1, 1, 1)):
    for i, (logits, s) in enumerate(zip(pyramid, strides)):
        logits = np.asarray(logits).transpose(0, 4, 1, 2, 3)[:, :, ::s, ::s, ::s]
        wanted = recorded[f"logits_{i}"]
        print(f"logits {i}: {share(logits, wanted):.1e}")
        np.testing.assert_allclose(logits, wanted, atol=2e-4)


def share(got, wanted):
    """Largest difference as a share of the largest value."""
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("case", [f"{net}_in1_out6" for net in OUTPUTS])
def test_outputs_are_the_originals(shared_data, original_weights, case):
    recorded, graph, state, image = golden(shared_data, case, original_weights)
    logits = compiled(lambda s, x: nnx.merge(graph, s).pyramid(x), state, image)
    assert_logits(recorded, logits)


@pytest.mark.parametrize(
    "case",
    ["S_k3_in8_out12_ds"]
    + [
        pytest.param(f"{n}_in1_out6", marks=[pytest.mark.slow, pytest.mark.long])
        for n in OUTPUTS
    ],
)
def test_outputs_and_gradients_are_the_originals(shared_data, original_weights, case):
    recorded, graph, state, image = golden(shared_data, case, original_weights)

    pyramid, by_image, norms = assert_objective(recorded, graph, state, image)
    assert_logits(recorded, pyramid)
    assert_input_gradient(recorded, by_image, 2)
    wanted = dict(zip(recorded["gradient_names"].tolist(), recorded["gradient_norms"]))
    assert norms.keys() == wanted.keys()
    worst = {
        n: abs(norms[n] / v - 1) for n, v in wanted.items() if "conv1.bias" not in n
    }
    name = max(worst, key=worst.__getitem__)
    print(f"norms of the gradients: {worst[name]:.1e} ({name})")
    for name, norm in wanted.items():
        assert_norm(name, norms[name], norm)


def assert_objective(recorded, graph, state, image):
    """Logits, the gradient by the image, and the norm of the gradient by each name."""

    def objective(state, image):
        pyramid = nnx.merge(graph, state).pyramid(image)
        total = jnp.zeros(())
        for i, logits in enumerate(pyramid):
            b, x, y, z, c = logits.shape
            generator = np.random.default_rng(99 + i)
            r = generator.standard_normal((b, c, x, y, z), np.float32)
            total += (logits * r.transpose(0, 2, 3, 4, 1)).sum()
        return total, pyramid

    gradient = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    (total, pyramid), (by_state, by_image) = compiled(gradient, state, image)
    np.testing.assert_allclose(total, recorded["objective"], rtol=1e-5)
    norms = {}
    for path, variable in nnx.to_flat_state(by_state):
        values = np.asarray(variable[...], np.float64)
        names = torch_names.original_names(path, values.shape)
        for name, value in zip(names, values if len(names) > 1 else values[None]):
            norms[name] = np.linalg.norm(value)
    return pyramid, by_image, norms


def assert_input_gradient(recorded, by_image, s):
    by_image = np.asarray(by_image).transpose(0, 4, 1, 2, 3)[:, :, ::s, ::s, ::s]
    scale = np.abs(recorded["input_gradient"]).max()
    print(f"gradient by the image: {share(by_image, recorded['input_gradient']):.1e}")
    np.testing.assert_allclose(
        by_image, recorded["input_gradient"], atol=1e-5 * float(scale)
    )


def assert_norm(name, norm, wanted):
    # conv1's bias is taken out again by the norm: torch's gradient is rounding.
    tolerance = {"atol": 0.1} if "conv1.bias" in name else {"rtol": 5e-5}
    np.testing.assert_allclose(norm, wanted, err_msg=name, **tolerance)


@pytest.mark.parametrize(
    "case", ["M_k3", pytest.param("L_k5", marks=pytest.mark.slow), "S_uneven"]
)
def test_networks_of_few_channels_equal_torch(original_weights, case):
    """Against values that `tests/parity/record_mednext.py` took from torch."""
    recorded = np.load(RECORDED / f"{case}.npz")
    arguments = json.loads(str(recorded["arguments"]))
    for name in {"strides", "kernels"} & arguments.keys():
        arguments[name] = tuple(map(tuple, arguments[name]))
    size, kernels = arguments["size"], arguments.get("kernels")
    inputs, outputs = arguments.get("in_channels", 1), arguments.get("out_channels", 6)
    weights = original_weights(
        size,
        arguments.get("kernel_size"),
        inputs,
        outputs,
        heads=5 if arguments.get("deep_supervision") else 1,
        width=arguments["channels"],
        kernels=kernels,
    )
    model = nnx.eval_shape(lambda: MedNeXt(**arguments, rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(model)
    state = nnx.state(torch_import.to_model(weights))
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), state, shapes)
    image = np.random.default_rng(1234).random((1, inputs, 32, 32, 32), np.float32)
    image = jnp.asarray(image.transpose(0, 2, 3, 4, 1))
    pyramid, by_image, norms = assert_objective(recorded, graph, state, image)
    assert_logits(recorded, pyramid, (4,) * len(pyramid))
    assert_input_gradient(recorded, by_image, 4)
    for name, wanted in zip(sorted(norms), recorded["gradient_norms"], strict=True):
        assert_norm(name, norms[name], wanted)


def test_every_name_of_every_size_has_one_place(original_weights):
    for size in "SBML":
        weights = original_weights(size, 3, 1, 6, width=1)
        state = nnx.state(torch_import.to_model(weights))
        held = sum(leaf.size for leaf in jax.tree.leaves(state))
        assert held == sum(value.size for value in weights.values()) - 1  # no dummy


def test_size_kernel_channels_and_heads_come_from_the_shapes(original_weights):
    model = torch_import.to_model(original_weights("S", 5, 8, 12, heads=5, width=2))
    assert model.kernels == ((5, 5, 5),) * 5
    assert model.stem.weight.shape == (8, 2)
    assert model.out_4.conv_out.weight.shape == (32, 12)


def test_axes_are_turned(original_weights):
    weights = original_weights("S", 3, 1, 6, width=2)
    model = torch_import.to_model(weights)
    np.testing.assert_array_equal(
        model.enc_block_1.conv1.weight[1, 0, 1, 2, 3],
        weights["enc_block_1.1.conv1.weight"][3, 0, 0, 1, 2],
    )
    np.testing.assert_array_equal(
        model.down_0.res_conv.weight[...],
        weights["down_0.res_conv.weight"][:, :, 0, 0, 0].T,
    )
    np.testing.assert_array_equal(
        model.up_0.res_conv.weight[...],
        weights["up_0.res_conv.weight"][:, :, 0, 0, 0],
    )


@pytest.mark.parametrize(
    "prefix",
    ["model.", "model._orig_mod.", "model.model.", "module.model."]
    + ["model._orig_mod.model."],
)
def test_wrappers_are_stripped(original_weights, prefix):
    weights = original_weights("S", 3, 1, 6, width=1)
    wrapped = {prefix + name: value for name, value in weights.items()}
    wrapped["loss_functions.0.pos_weight"] = np.ones(1)
    model = torch_import.to_model(wrapped)
    np.testing.assert_array_equal(
        model.stem.weight[0], weights["stem.weight"].reshape(1)
    )


def to_monai(name):
    for level in range(4):
        name = re.sub(rf"^enc_block_{level}\.", f"enc_stages.{level}.", name)
        name = re.sub(rf"^down_{level}\.", f"down_blocks.{level}.", name)
        name = re.sub(rf"^up_{level}\.", f"up_blocks.{3 - level}.", name)
        name = re.sub(rf"^dec_block_{level}\.", f"dec_stages.{3 - level}.", name)
        name = re.sub(rf"^out_{level + 1}\.", f"out_blocks.{3 - level}.", name)
    return name


def test_monai_names_of_size_s(original_weights):
    weights = original_weights("S", 3, 1, 6, heads=5, width=1)
    ours = nnx.state(torch_import.to_model(weights))
    del weights["dummy_tensor"]
    renamed = {to_monai(name): value for name, value in weights.items()}
    assert "out_blocks.0.conv_out.weight" in renamed
    theirs = nnx.state(torch_import.to_model(renamed))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_monai_b_is_refused_with_the_reason(original_weights):
    weights = original_weights("B", 3, 1, 6, width=1)
    # MONAI's down block of level 0 expands by 2, its own level's, where ours has 3.
    weights["down_0.conv2.weight"] = np.zeros((2, 1, 1, 1, 1), np.float32)
    renamed = {to_monai(name): value for name, value in weights.items()}
    with pytest.raises(InputError, match="only S can be imported from MONAI"):
        torch_import.to_model(renamed)


def refuse(weights, message):
    with pytest.raises(InputError, match=message):
        torch_import.to_model(weights)


def test_what_does_not_fit_is_named(original_weights):
    weights = original_weights("S", 3, 1, 6, width=1)
    # Prefixes are taken off one by one: 300,000 of them took forever.
    long = "model." * 300_000 + "stem.weight"
    refuse({long: np.zeros(1)}, "a weight's name has 1800011 characters; give a")
    refuse({"conv.weight": np.zeros(1)}, "no MedNeXt among 1 weights: no name ends in")
    without = {k: v for k, v in weights.items() if k != "up_1.norm.bias"}
    refuse(without, r"1 missing \(up_1.norm.bias\), 0 left over")
    refuse(weights | {"extra": np.ones(1)}, r"0 missing, 1 left over \(extra\)")
    refuse(
        weights | {"up_1.norm.bias": np.ones(5, np.float32)},
        r"up_1.norm.bias has shape \(5,\), wanted \(4,\): it does not fit",
    )
    nan = np.array([1, np.nan, 2, 3], np.float32)
    refuse(
        weights | {"up_1.norm.bias": nan},
        r"up_1.norm.bias \(float32\) is not all finite",
    )
    refuse(
        weights | {"up_1.norm.bias": np.ones(4, np.int64)},
        r"up_1.norm.bias \(int64\) is not all finite floating-point",
    )
    large = np.full(4, 1e300)
    refuse(weights | {"up_1.norm.bias": large}, r"\(float64\) is not all finite")
    without = {k: v for k, v in weights.items() if not k.startswith("bottleneck.1")}
    refuse(without, r"is none of \['B', 'L', 'M', 'S'\]")
    without = {k: v for k, v in weights.items() if not k.startswith("out_0")}
    refuse(without, "missing out_0.conv_out.weight with 5 axes")


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("stem.weight", (2, 1, 3, 3, 3), r"\(2, 1, 1, 1, 1\)"),
        ("down_0.res_conv.weight", (4, 2, 2, 2, 2), r"\(4, 2, 1, 1, 1\)"),
        ("up_0.res_conv.weight", (2, 4, 1, 1, 1), r"\(4, 2, 1, 1, 1\)"),
        ("enc_block_0.1.conv1.weight", (2, 2, 3, 3, 3), r"\(2, 1, 3, 3, 3\)"),
        ("enc_block_0.1.conv1.weight", (2, 1, 5, 5, 5), r"\(2, 1, 3, 3, 3\)"),
        ("enc_block_0.1.conv2.weight", (2, 4), r"\(4, 2, 1, 1, 1\)"),
    ],
)
def test_layers_of_another_kind_are_refused(original_weights, name, shape, wanted):
    """A wide stem, a full convolution, a matrix in our own order: nothing is cut to fit."""
    weights = original_weights("S", 3, 1, 6, width=2)
    message = rf"{name} has shape .*, wanted {wanted}: it does not fit"
    refuse(weights | {name: np.ones(shape, np.float32)}, message)


def test_weights_without_values_are_refused(original_weights):
    weights = original_weights("S", 3, 1, 6, width=2)
    empty = np.ones((0, 0, 1, 1, 1), np.float32)
    refuse(weights | {"enc_block_0.0.conv2.weight": empty}, "is none of")
    refuse(weights | {"stem.weight": empty}, "in_channels=0, wanted at least 1")
