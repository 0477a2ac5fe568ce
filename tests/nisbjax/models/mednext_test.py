"""MedNeXt: sizes, shapes, initialisation, precision, and what it refuses."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from nisbjax.errors import InputError
from nisbjax.models import mednext, parameters
from nisbjax.models.mednext import MedNeXt

# Published counts less the original's one-element dummy tensor, k = 3, 5, 7.
COUNTS = {
    "S": (5_551_046, 5_980_678, 6_936_390),
    "B": (10_526_438, 10_956_070, 11_911_782),
    "M": (17_549_094, 18_260_966, 19_844_518),
    "L": (61_779_398, 62_993_030, 65_692_742),
}
TINY = {"size": "S", "channels": 2}


def shapes(**arguments):
    return nnx.eval_shape(lambda: MedNeXt(**arguments, rngs=nnx.Rngs(0)))


def count(model):
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def output(model, shape, dtype=jnp.float32, call=MedNeXt.__call__):
    graph, state = nnx.split(model)
    return jax.eval_shape(
        lambda state, x: call(nnx.merge(graph, state), x),
        state,
        jax.ShapeDtypeStruct(shape, dtype),
    )


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts_are_the_published(size):
    for kernel, wanted in zip((3, 5, 7), COUNTS[size]):
        assert count(shapes(size=size, kernel_size=kernel)) == wanted


def test_parameter_counts_of_variants():
    base = COUNTS["S"][0]
    assert count(shapes(size="S", deep_supervision=True)) == base + 5_784
    assert count(shapes(size="S", in_channels=8)) == base + 224
    assert count(shapes(size="S", out_channels=12)) == 5_551_245 - 1


def test_names_follow_the_original_with_a_leading_block_axis():
    paths = {
        ".".join(map(str, path)): value.shape
        for path, value in nnx.to_flat_state(nnx.state(shapes(size="L")))
    }
    assert paths["enc_block_1.conv1.weight"] == (4, 3, 3, 3, 64)
    assert paths["enc_block_1.conv2.weight"] == (4, 64, 256)
    assert paths["up_3.res_conv.weight"] == (512, 256)
    assert paths["out_0.conv_out.weight"] == (32, 6)


def test_heads_halve_the_resolution():
    model = shapes(**TINY, deep_supervision=True, out_channels=3)
    pyramid = output(model, (2, 32, 16, 16, 1), call=MedNeXt.pyramid)
    assert [p.shape for p in pyramid] == [
        (2, 32 >> i, 16 >> i, 16 >> i, 3) for i in range(5)
    ]


def test_strides_and_kernels_of_each_level():
    kernels = ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 5, 5))
    strides = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    model = shapes(**TINY, kernels=kernels, strides=strides)
    assert model.enc_block_0.conv1.weight.shape == (2, 1, 3, 3, 2)
    assert model.down_0.conv1.weight.shape == (1, 3, 3, 2)
    assert model.bottleneck.conv1.weight.shape == (2, 3, 5, 5, 32)
    assert output(model, (1, 4, 16, 16, 1)).shape == (1, 4, 16, 16, 6)


def test_fan_in_is_counted_as_torch_does(monkeypatch):
    drawn = {}

    def record(rngs, shape, outputs, fan_in, dtype, stack=()):
        drawn.setdefault((*stack, *shape), set()).add(fan_in)
        return parameters.Affine(
            jnp.zeros((*stack, *shape)), jnp.zeros((*stack, outputs))
        )

    monkeypatch.setattr(mednext, "uniform", record)
    monkeypatch.setattr(parameters, "uniform", record)
    shapes(size="S")
    assert drawn[1, 32] == {1}  # stem
    assert drawn[2, 3, 3, 3, 32] == {27}  # depthwise: one input channel per group
    assert drawn[3, 3, 3, 512] == {27}
    assert drawn[2, 32, 64] == {32}
    assert drawn[256, 512] == {256}  # down_3.conv2 and its res_conv
    # up_3: conv3 has its 1024 inputs; res_conv is transposed, counted by its outputs.
    assert drawn[1024, 256] == {1024}
    assert drawn[512, 256] == {256}
    assert drawn[32, 6] == {6}  # head


def test_each_block_is_computed_again_or_its_expansion():
    def traced(remat):
        graph, state = nnx.split(shapes(**TINY, remat=remat))

        def loss(state, x):
            return nnx.merge(graph, state)(x).mean()

        x = jax.ShapeDtypeStruct((1, 16, 16, 16, 1), jnp.float32)
        return str(jax.jit(jax.grad(loss)).trace(state, x).jaxpr)

    # One for each of 9 stages (their blocks are one loop), 4 down and 4 up blocks.
    assert traced("block").count("remat") == 17
    assert traced("expansion").count("remat") == 17


def test_logits_are_float32_whatever_the_compute_dtype():
    for dtype in (jnp.float32, jnp.bfloat16):
        model = shapes(**TINY, dtype=dtype)
        for image in (jnp.float32, jnp.bfloat16, jnp.float16):
            assert output(model, (1, 16, 16, 16, 1), image).dtype == jnp.float32


def test_lowers_for_cuda():
    graph, state = nnx.split(shapes(**TINY))

    def loss(state, x):
        return nnx.merge(graph, state)(x).mean()

    x = jax.ShapeDtypeStruct((1, 16, 16, 16, 1), jnp.float32)
    traced = jax.jit(jax.grad(loss)).trace(state, x)
    lowered = traced.lower(lowering_platforms=("cuda",))
    assert "stablehlo.convolution" not in lowered.as_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": "XL"}, r"size 'XL' is not one of \['B', 'L', 'M', 'S'\]"),
        ({"kernel_size": 4}, r"kernel_size 4 is not one of \(3, 5, 7\)"),
        ({"out_channels": 0}, r"out_channels=0, wanted at least 1"),
        ({"strides": ((2, 2, 2),) * 3}, r"wanted 4 triples of 1 or more"),
        ({"strides": ((0, 2, 2),) * 4}, r"wanted 4 triples of 1 or more"),
        ({"kernels": ((-1, 3, 3),) * 5}, r"wanted 5 triples of odd sizes"),
        ({"dtype": jnp.int32}, r"wanted a floating-point type such as float32"),
        ({"dtype": "half4"}, r"dtype='half4', wanted a floating-point type"),
        ({"param_dtype": jnp.int8}, r"got param_dtype=.*int8.*, wanted a floating"),
        ({"kernels": ((2, 3, 3),) * 5}, r"wanted 5 triples of odd sizes"),
    ],
)
def test_refuses_networks_that_are_none(arguments, message):
    with pytest.raises(InputError, match=message):
        shapes(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"in_channels": 1.5}, r"in_channels=1.5, wanted at least 1, a whole number"),
        ({"channels": "8"}, r"channels='8', wanted at least 1"),
        ({"size": ["S"]}, r"size \['S'\] is not one of"),
        ({"strides": ((2, 2),) * 4}, r"wanted 4 triples of 1 or more"),
        ({"strides": (2, 2, 2, 2)}, r"strides \(2, 2, 2, 2\), wanted 4 triples"),
        ({"strides": ((1.5, 2, 2),) * 4}, r"wanted 4 triples of 1 or more"),
        ({"kernels": 3}, r"kernels 3, wanted 5 triples of odd sizes"),
    ],
)
def test_refuses_other_types_by_itself(arguments, message):
    """Without beartype, which stops them before in all other tests."""
    rest = {"size": "S", "kernel_size": 3, "in_channels": 1, "out_channels": 6}
    rest |= {"channels": 2, "strides": ((2, 2, 2),) * 4, "kernels": None}
    with pytest.raises(InputError, match=message):
        mednext._checked(**rest | arguments)


@pytest.mark.parametrize(
    "shape, dtype, message",
    [
        ((1, 16, 16, 16, 2), jnp.float32, r"wanted \[b x y z 1\]; set model.in_channe"),
        ((1, 16, 16, 16, 1), jnp.uint8, r"got a uint8 image, wanted floating point"),
        ((1, 16, 24, 16, 1), jnp.float32, r"wanted multiples of \(16, 16, 16\)"),
        ((1, 0, 16, 16, 1), jnp.float32, r"wanted multiples of \(16, 16, 16\)"),
    ],
)
def test_refuses_images_that_do_not_fit(shape, dtype, message):
    with pytest.raises(InputError, match=message):
        output(shapes(**TINY), shape, dtype)
