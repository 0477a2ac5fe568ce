"""MedNeXt against torch 2.13: MONAI 1.6.1's S, and the twin of this folder for the rest.

Every parameter is random, scales and biases too; float32 on both sides. Errors are given
as a share of the largest value of the array compared: `LOGITS` and `GRADIENTS` bound them,
and each test prints what it found.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nisbjax.errors import InputError
from nisbjax.models import blocks, build
from nisbjax.models.foreign import torch_import
from nisbjax.models.foreign.upkern import upkern
from nisbjax.models.mednext import MedNeXt

twin = pytest.importorskip("torch_mednext")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# Measured over all cases below: single blocks 2.6e-6; whole networks logits 2.0e-6, image
# 1.9e-6, parameters 4.7e-5 (the stem's, whose terms nearly cancel). torch in float32
# differs as much from itself in float64.
LOGITS, GRADIENTS = 5e-6, 1e-4
# Compiling takes longer than running here, and as long again with LLVM's optimisation.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
SHAPE = (32, 32, 32)


def compiled(function, *arguments):
    lowered = jax.jit(function).lower(*arguments)
    return lowered.compile(compiler_options=QUICK)(*arguments)


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def channels_last(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def channels_first(array):
    return torch.from_numpy(np.moveaxis(np.asarray(array), -1, 1).copy())


def error(got, wanted):
    """Largest difference as a share of the largest value."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def gradients(module):
    """By parameter; what does not reach the output counts as zero."""
    found = {}
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        found[name] = (parameter * 0 if gradient is None else gradient).detach().numpy()
    return found


# One block at a time.


def in_our_axes(name, value, transposed):
    """Depthwise [c 1 i j k] to [i j k c], [o i] to [i o]; transposed ones are [i o]."""
    if value.ndim == 1:
        return value
    if name.startswith("conv1"):
        return value[:, 0].transpose(1, 2, 3, 0)
    value = value[..., 0, 0, 0]
    return (
        value if transposed and name.startswith(("res_conv", "conv_out")) else value.T
    )


def nested(values, transposed):
    tree = {}
    for name, value in values.items():
        layer, kind = name.split(".")
        tree.setdefault(layer, {})[kind] = in_our_axes(name, value, transposed)
    return tree


KERNELS = [((3, 3, 3), (2, 2, 2)), ((5, 5, 5), (2, 2, 2)), ((7, 7, 7), (2, 2, 2))]
KERNELS += [((1, 3, 3), (1, 2, 2))]  # with its stride


@pytest.mark.parametrize(("expansion", "sizes"), list(zip((2, 3, 4, 8), KERNELS)))
@pytest.mark.parametrize("kind", ["plain", "down", "up"])
def test_each_block(kind, expansion, sizes):
    channels, (kernel, stride) = 6, sizes
    if kind == "plain":
        theirs = twin.fill(twin.Block(channels, expansion, kernel))
        ours = blocks.block
    elif kind == "down":
        theirs = twin.fill(twin.DownBlock(channels, expansion, kernel, stride))
        ours = lambda x, p: blocks.down_block(x, p, stride)
    else:
        theirs = twin.fill(twin.UpBlock(channels, expansion, kernel, stride))
        ours = lambda x, p: blocks.up_block(x, p, stride)
    parameters = nested(twin.arrays(theirs), kind == "up")
    compare(theirs, ours, parameters, draw(0, 2, 8, 10, 12, channels), kind == "up")


@pytest.mark.parametrize("inputs", [1, 8])
def test_stem(inputs):
    theirs = torch.nn.Sequential()
    theirs.add_module("stem", torch.nn.Conv3d(inputs, 6, 1))
    twin.fill(theirs)
    parameters = nested(twin.arrays(theirs), False)
    image = draw(0, 2, 4, 5, 6, inputs)
    compare(theirs, lambda x, p: blocks.pointwise(x, p["stem"]), parameters, image)


@pytest.mark.parametrize("outputs", [6, 12])
def test_head(outputs):
    theirs = twin.fill(twin.Head(8, outputs))
    parameters = nested(twin.arrays(theirs), True)
    features = draw(0, 2, 4, 5, 6, 8)

    def ours(x, p):
        return blocks.pointwise(x, p["conv_out"])

    compare(theirs, ours, parameters, features, True)


def compare(theirs, ours, parameters, image, transposed=False):
    """Outputs and the gradients of a random projection by the input and every leaf."""
    x = channels_first(image).requires_grad_()
    wanted = theirs(x)
    projection = draw(1, *channels_last(wanted).shape)
    (wanted * channels_first(projection)).sum().backward()

    def objective(image, parameters):
        output = ours(image, parameters)
        return (output * projection).sum(), output

    (_, got), (by_image, by_parameters) = compiled(
        jax.value_and_grad(objective, argnums=(0, 1), has_aux=True),
        jnp.asarray(image),
        parameters,
    )
    errors = {"output": error(got, channels_last(wanted))}
    errors["input"] = error(by_image, channels_last(x.grad))
    for layer, leaves in nested(gradients(theirs), transposed).items():
        for kind, value in leaves.items():
            if (layer, kind) == ("conv1", "bias"):  # the norm takes it out again
                np.testing.assert_array_equal(by_parameters[layer][kind], 0)
                scale = np.abs(gradients(theirs)["conv1.weight"]).max()
                assert np.abs(value).max() < 1e-4 * scale
            else:
                errors[f"{layer}.{kind}"] = error(by_parameters[layer][kind], value)
    print({name: f"{value:.1e}" for name, value in errors.items()})
    assert errors.pop("output") < LOGITS
    assert max(errors.values()) < GRADIENTS, errors


# The whole network.


def run_torch(network, image, train=False):
    """Logits of every head, and the gradients of the recorded objective."""
    x = channels_first(image).requires_grad_()
    logits = network.train(train)(x)
    logits = list(logits) if isinstance(logits, list | tuple) else [logits]
    total = sum(
        (values * channels_first(projection(i, values))).sum()
        for i, values in enumerate(logits)
    )
    total.backward()
    return [channels_last(v) for v in logits], channels_last(x.grad)


def projection(i, values):
    shape = tuple(values.shape)
    return draw(99 + i, shape[0], *shape[2:], shape[1])


def run_ours(model, image):
    graph, state = nnx.split(model)

    def objective(state, image):
        pyramid = nnx.merge(graph, state).pyramid(image)
        total = jnp.zeros(())
        for i, values in enumerate(pyramid):
            total += (values * draw(99 + i, *values.shape)).sum()
        return total, pyramid

    (_, pyramid), (by_state, by_image) = compiled(
        jax.value_and_grad(objective, argnums=(0, 1), has_aux=True),
        state,
        jnp.asarray(image),
    )
    return pyramid, by_image, by_state


def assert_equal(name, ours, theirs, their_gradients):
    """`theirs` are logits and the gradient by the image; the rest a state dict."""
    pyramid, by_image, by_state = ours
    logits = [error(a, b) for a, b in zip(pyramid, theirs[0], strict=True)]
    errors = {"image": error(by_image, theirs[1])}
    # A state dict of gradients, turned into our axes as weights are.
    wanted = nnx.to_flat_state(nnx.state(torch_import.to_model(their_gradients)))
    for (path, got), (_, value) in zip(nnx.to_flat_state(by_state), wanted):
        if path[-2:] != ("conv1", "bias"):
            errors[".".join(map(str, path))] = error(got[...], value[...])
    worst = max(errors, key=errors.get)
    print(
        f"{name}: logits {max(logits):.1e}, image {errors['image']:.1e}, "
        f"parameters {errors[worst]:.1e} ({worst})"
    )
    assert max(logits) < LOGITS, logits
    assert errors[worst] < GRADIENTS, worst


LONG = [s + k for s in "SBML" for k in "357" if s + k not in ("S3", "L3", "M5", "S7")]


@pytest.mark.parametrize(
    "case",
    ["S3", "L3", "M5", "S7", *(pytest.param(c, marks=pytest.mark.long) for c in LONG)],
)
def test_whole_networks_equal_the_twin(case):
    """Through the names and shapes alone; at k7 with 8 channels and 12 outputs."""
    size, kernel = case[0], int(case[1])
    inputs, outputs = (8, 12) if kernel == 7 else (1, 6)
    theirs = twin.MedNeXt(
        size, kernel, inputs, outputs, channels=4, deep_supervision=size in "SL"
    )
    twin.fill(theirs)
    image = np.random.default_rng(0).random((1, *SHAPE, inputs), np.float32)
    wanted = run_torch(theirs, image)
    got = run_ours(torch_import.to_model(twin.arrays(theirs)), image)
    assert_equal(f"{size} k{kernel}", got, wanted, gradients(theirs))


def test_uneven_strides_kernels_and_channels_equal_the_twin():
    arguments = {
        "size": "S",
        "in_channels": 8,
        "out_channels": 12,
        "channels": 4,
        "strides": ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
        "kernels": ((1, 3, 3), (1, 5, 5), (3, 3, 3), (3, 3, 7), (3, 3, 3)),
        "deep_supervision": True,
    }
    theirs = twin.fill(twin.MedNeXt(**arguments))
    image = np.random.default_rng(0).random((2, 8, 32, 32, 8), np.float32)
    wanted = run_torch(theirs, image)
    # Strides leave no trace in the shapes: those of the imported model are 2.
    read = nnx.state(torch_import.to_model(twin.arrays(theirs)))
    ours = nnx.eval_shape(lambda: MedNeXt(**arguments, rngs=nnx.Rngs(0)))
    nnx.update(ours, read)
    assert_equal("uneven S", run_ours(ours, image), wanted, gradients(theirs))


def test_initial_weights_are_distributed_as_torchs():
    """Spread and range of every parameter, of which ours are drawn by numpy."""
    arguments = {"size": "S", "kernel_size": 3, "in_channels": 8, "out_channels": 12}
    arguments |= {"channels": 32, "deep_supervision": True}
    torch.manual_seed(0)
    theirs = nnx.to_pure_dict(
        nnx.state(torch_import.to_model(twin.arrays(twin.MedNeXt(**arguments))))
    )
    ours = build.initial_params(arguments, 0)

    def check(path, a, b):
        if path[-2].key == "norm":
            np.testing.assert_array_equal(a, b)
            return
        a, b = np.abs(np.asarray(a)), np.abs(np.asarray(b))
        # Both uniform in one bound: the mean of |v| is half of it and spreads by
        # bound / sqrt(12 n); the largest misses the bound by 1 / n of it.
        bound = 2 * b.mean()
        assert abs(a.mean() - b.mean()) < 5 * bound / np.sqrt(6 * a.size), path
        assert abs(a.max() - b.max()) < 20 * bound / a.size, path

    jax.tree_util.tree_map_with_path(check, ours, theirs)


@pytest.mark.parametrize(("small", "large"), [(3, 5), (3, 7), (5, 7)])
def test_upkern_is_torchs_trilinear_interpolation(small, large):
    kernels = draw(0, 6, 1, *(small,) * 3)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(kernels), (large,) * 3, mode="trilinear", align_corners=False
    )
    params = {"conv1": {"weight": in_our_axes("conv1.weight", kernels, False)}}
    target = {"conv1": {"weight": np.zeros((*(large,) * 3, 6), np.float32)}}
    got = upkern(params, target)["conv1"]["weight"]
    wanted = in_our_axes("conv1.weight", wanted.numpy(), False)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


# MONAI.


def from_monai(name):
    """MONAI's name to the original's: its decoder counts from the deepest level."""
    rules = (
        (r"enc_stages\.(\d)", lambda m: f"enc_block_{m[1]}"),
        (r"down_blocks\.(\d)", lambda m: f"down_{m[1]}"),
        (r"up_blocks\.(\d)", lambda m: f"up_{3 - int(m[1])}"),
        (r"dec_stages\.(\d)", lambda m: f"dec_block_{3 - int(m[1])}"),
        (r"out_blocks\.(\d)", lambda m: f"out_{4 - int(m[1])}"),
    )
    for pattern, rename in rules:
        name = re.sub(f"^{pattern}", rename, name)
    return name


@pytest.fixture(scope="module")
def monai_mednext():
    return pytest.importorskip("monai.networks.nets.mednext")


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_twin_is_monais_network(monai_mednext, kernel):
    theirs = monai_mednext.MedNeXt(
        init_filters=4,
        out_channels=6,
        kernel_size=kernel,
        use_residual_connection=True,
        deep_supervision=True,
    )
    twin.fill(theirs)
    weights = {from_monai(name): value for name, value in theirs.state_dict().items()}
    same = twin.MedNeXt("S", kernel, channels=4, deep_supervision=True)
    same.load_state_dict({**weights, "dummy_tensor": torch.ones(1)})
    image = np.random.default_rng(0).random((1, *SHAPE, 1), np.float32)
    logits, by_image = run_torch(same, image)
    wanted, wanted_by_image = run_torch(theirs, image, train=True)
    assert max(error(a, b) for a, b in zip(logits, wanted, strict=True)) < LOGITS
    assert error(by_image, wanted_by_image) < GRADIENTS
    ours = gradients(same)
    for name, value in gradients(theirs).items():
        if "conv1.bias" not in name:
            assert error(ours[from_monai(name)], value) < GRADIENTS, name


def test_monais_weights_in_our_network(monai_mednext):
    theirs = monai_mednext.create_mednext(
        "S", out_channels=6, kernel_size=3, deep_supervision=True
    )
    twin.fill(theirs)
    image = np.random.default_rng(0).random((1, *SHAPE, 1), np.float32)
    wanted = run_torch(theirs, image, train=True)
    got = run_ours(torch_import.to_model(twin.arrays(theirs)), image)
    assert_equal("MONAI's S", got, wanted, gradients(theirs))


def test_our_weights_in_monais_network(monai_mednext):
    ours = nnx.eval_shape(lambda: MedNeXt("S", 5, channels=8, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(ours)
    weights = {}
    filled = []
    for number, (path, leaf) in enumerate(nnx.to_flat_state(state)):
        at = 1.0 if path[-2:] == ("norm", "weight") else 0.0
        value = np.float32(at) + np.float32(0.2) * draw(number, *leaf.shape)
        filled.append((path, leaf.replace(jnp.asarray(value))))
        stacked = path[0].startswith(("enc_", "dec_", "bottleneck"))
        for j, part in enumerate(value if stacked else [value]):
            name = ".".join((path[0], str(j), *path[1:]) if stacked else path)
            weights[name] = torch.from_numpy(in_their_axes(path, part).copy())
    ours = nnx.merge(graph, nnx.from_flat_state(filled))
    theirs = monai_mednext.MedNeXt(
        init_filters=8, out_channels=6, kernel_size=5, use_residual_connection=True
    )
    names = {name: from_monai(name) for name in theirs.state_dict()}
    assert set(names.values()) == set(weights)
    theirs.load_state_dict({name: weights[names[name]] for name in names})
    image = np.random.default_rng(0).random((1, *SHAPE, 1), np.float32)
    wanted = run_torch(theirs, image)
    assert_equal("our S", run_ours(ours, image), wanted, gradients(theirs))


def in_their_axes(path, value):
    if value.ndim == 1:
        return value
    if path[-2] == "conv1":
        return value.transpose(3, 0, 1, 2)[:, None]
    transposed = path[-2] == "conv_out" or (
        path[-2] == "res_conv" and path[0].startswith("up_")
    )
    return (value if transposed else value.T)[..., None, None, None]


@pytest.mark.parametrize("size", "BML")
def test_monais_larger_networks_are_refused(monai_mednext, size):
    theirs = monai_mednext.create_mednext(size, out_channels=6, kernel_size=3)
    with pytest.raises(InputError, match="only S can be imported from MONAI"):
        torch_import.to_model(twin.arrays(theirs))
