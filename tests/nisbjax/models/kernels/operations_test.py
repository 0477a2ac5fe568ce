"""Which candidates an operation has, and that all of them compute the same."""

import jax
import pytest

from nisbjax.models import build
from nisbjax.models.kernels import operations
from nisbjax.models.kernels.choice import Recorder, Use

HALF, FULL = "float16", "float32"


def convolution(*shape, moments=True):
    weight = (3, 3, 3, shape[-1])
    return Use("convolve", (shape, weight), (HALF, FULL), (("moments", moments),))


def names(use):
    return [c.name for c in operations.ALL[use.operation].candidates(use)]


def test_the_first_is_xla_and_a_few_kernels_follow():
    found = names(convolution(2, 128, 128, 128, 32))
    assert found[0] == "xla" and set(found[1:]) == {"pallas"}
    assert 1 < len(found) <= 2 + operations.TRIED


def test_what_a_sketch_was_fastest_with_is_tried_first():
    use = convolution(2, 128, 128, 128, 32, moments=False)
    first = operations.CONVOLVE.candidates(use)[1]
    wanted = {"rows": 4, "columns": 16, "channels": 32, "planes": 32, "warps": 4}
    assert wanted.items() <= dict(first.parameters).items()


def test_small_grids_are_tried_with_small_tiles():
    """16^3 of 256 channels in tiles of 4 x 16 x 32: too few programs for a GPU."""
    for use in (convolution(2, 16, 16, 16, 256), convolution(1, 8, 8, 8, 512)):
        for candidate in operations.CONVOLVE.candidates(use)[1:]:
            assert dict(candidate.parameters)["planes"] <= 16


@pytest.mark.parametrize(
    "shape",
    [
        (2, 8, 8, 8, 12),  # no multiple of 16 channels
        (17, 160, 160, 160, 32),  # 2.2e9 values: beyond 32 bits
    ],
)
def test_xla_alone_for_what_the_kernels_do_not_take(shape):
    assert names(convolution(*shape)) == ["xla"]


def test_xla_alone_for_a_result_that_the_kernels_do_not_take():
    """16 x 64^3 x 64 values are 2.7e8; eight times as many are 2^31."""
    strides = ("low", (0, 0, 0)), ("strides", (2, 2, 2))
    for batch, kernels in ((15, True), (16, False)):
        shapes = (batch, 64, 64, 64, 64), (3, 3, 3, 64)
        assert ("pallas" in names(Use("scatter", shapes, (HALF, FULL), strides))) is (
            kernels
        )


def mixing(n, channels, hidden, outputs=None):
    outputs = outputs or channels
    shapes = (2, n, channels), (2, channels), (2, channels, hidden), (2, hidden)
    shapes += (hidden, outputs), (outputs,), (2, n, outputs)
    return Use("mix", shapes, (HALF, HALF, HALF, FULL, HALF, FULL, HALF))


def test_no_kernel_for_products_with_fewer_outputs_than_a_gpu_multiplies_at_once():
    """Triton's products have at least 16 columns; an up block may halve 16 channels."""
    assert "pallas" in names(mixing(512, 32, 64, 16))
    assert "pallas" not in names(mixing(512, 16, 32, 8))


def test_the_products_of_many_channels_are_left_to_the_library():
    assert names(mixing(512, 1024, 4096)) == ["xla", "xla_batched"]


def test_hidden_values_are_not_left_in_memory_where_they_are_many():
    """2 x 128^3 x 96 values are 0.8 GB."""
    assert "xla_batched" not in names(mixing(128**3, 32, 96))


@pytest.fixture(scope="module")
def uses():
    """Those of a training step of a small network; a few seconds to trace."""
    arguments = {"size": "S", "channels": 16, "kernel_size": 3}
    arguments |= {"in_channels": 1, "out_channels": 3, "deep_supervision": False}
    recorder = Recorder()
    apply = build.make_apply(arguments, HALF, remat="block", kernels=recorder)
    params = build.abstract_params(arguments)
    image = jax.ShapeDtypeStruct((1, 16, 16, 32, 1), FULL)

    def loss(params, image):
        return apply(params, image).sum()

    jax.eval_shape(jax.grad(loss), params, image)
    return recorder.uses


def test_a_network_asks_for_every_operation(uses):
    assert {use.operation for use in uses} == set(operations.ALL)
    assert len(uses) == len(set(uses))


def test_random_input_has_the_shapes_and_types_of_its_use(uses):
    for use in uses:
        operation = operations.ALL[use.operation]
        arrays = jax.eval_shape(
            lambda k, u=use, o=operation: o.example(u, k), jax.random.key(0)
        )
        assert tuple(a.shape for a in arrays) == use.shapes
        assert tuple(str(a.dtype) for a in arrays) == use.dtypes


def test_all_forms_of_the_products_agree():
    """XLA's, batched, and a kernel, in float32."""
    shapes = {"y": (2, 40, 16), "mean": (2, 16), "w2": (2, 16, 32), "b2": (2, 32)}
    shapes |= {"w3": (32, 16), "b3": (16,), "u": (2, 16)}
    for name, arguments in (
        ("mix", "y mean w2 b2 w3 b3 y"),
        ("mix_input_gradient", "y y mean w2 b2 w3 u u"),
        ("mix_weight_gradients", "y y mean w2 b2 w3"),
    ):
        kinds = tuple(shapes[a] for a in arguments.split())
        use = Use(name, kinds, (FULL,) * len(kinds))
        operation = operations.ALL[name]
        arrays = operation.example(use, jax.random.key(1))
        candidates = operation.candidates(use)
        assert len({c.name for c in candidates}) == 3
        results = {
            c.name: jax.jit(lambda *a, c=c, o=operation: o.run(c, *a))(*arrays)
            for c in candidates[:3]
        }
        for result in results.values():
            for a, b in zip(
                jax.tree.leaves(result), jax.tree.leaves(results["xla"]), strict=True
            ):
                scale = float(abs(b).max())
                assert float(abs(a - b).max()) < 1e-5 * scale
