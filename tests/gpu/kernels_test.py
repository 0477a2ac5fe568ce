"""Kernels on a GPU: every candidate of every operation is right there, and always the same.

JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu tests/gpu        (make bench-gpu)
"""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_operations as fake
from jax.flatten_util import ravel_pytree
from small_blocks import PallasKernels, compare, first, image, parameters_of

from nisbjax.models import blocks, build
from nisbjax.models.kernels import fused, measure, operations, races
from nisbjax.models.kernels.choice import Kernels, Recorder, Use
from nisbjax.parallel.background import run_all

FULL = "float32"
SIZES = (5, 9, 11)  # no tile divides them
# Every type and every width; all pairs of them would compile for minutes.
FEW = ((FULL, 16), ("float16", 48), ("bfloat16", 64))
KINDS = (*FEW, ("float16", 64), (FULL, 48))
STRIDES = ((2, 2, 2), (1, 2, 2))


def convolution(dtype, channels, kernel, *, residual):
    x, weight = (2, *SIZES, channels), (*kernel, channels)
    shapes, dtypes = (x, weight), (dtype, FULL)
    if residual:
        shapes, dtypes = (*shapes, x), (*dtypes, dtype)
    return Use("convolve", shapes, dtypes, (("moments", not residual),))


def strided(operation, dtype, channels, strides):
    """Even sizes, as a network has them, of which a tile divides none either."""
    sizes = (4, 6, 10)
    weight = (3, 3, 3, channels)
    static = (("low", (1, 1, 1)), ("strides", strides))
    return Use(operation, ((2, *sizes, channels), weight), (dtype, FULL), static)


def kernel_gradient(dtype, channels, kernel, strides=(1, 1, 1)):
    coarse = SIZES if strides == (1, 1, 1) else (4, 6, 10)
    fine = tuple(n * s for n, s in zip(coarse, strides))
    static = {"kernel": kernel, "strides": strides}
    static["low"] = tuple(k // 2 for k in kernel)
    shapes = (2, *fine, channels), (2, *coarse, channels)
    return Use("kernel_gradient", shapes, (dtype,) * 2, tuple(sorted(static.items())))


def mixing(operation, dtype, channels):
    """333 voxels, twice as many hidden channels."""
    y, hidden, half = (2, 333, channels), 2 * channels, dtype
    mean, weight2, bias2 = (2, channels), (2, channels, hidden), (2, hidden)
    weight3 = (hidden, channels)
    if operation == "mix":
        shapes = (y, mean, weight2, bias2, weight3, (channels,), y)
        return Use(operation, shapes, (half, half, half, FULL, half, FULL, half))
    shapes = (y, y, mean, weight2, bias2, weight3)
    dtypes = (half, half, half, half, FULL, half)
    if operation == "mix_input_gradient":
        shapes, dtypes = (*shapes, mean, mean), (*dtypes, FULL, FULL)
    return Use(operation, shapes, dtypes)


def uses():
    cube, wide = (3, 3, 3), (5, 5, 5)
    found = [convolution(*kind, cube, residual=False) for kind in KINDS]
    found += [convolution(*kind, wide, residual=True) for kind in FEW]
    found += [kernel_gradient(*kind, cube) for kind in KINDS]
    found += [kernel_gradient(*kind, wide) for kind in FEW]
    for kind, strides in itertools.product(FEW, STRIDES):
        found += [strided(name, *kind, strides) for name in ("gather", "scatter")]
        found.append(kernel_gradient(*kind, cube, strides))
    for name in ("mix", "mix_input_gradient", "mix_weight_gradients"):
        found += [mixing(name, *kind) for kind in KINDS]
    return found


USES = uses()


def race_of(operation, use):
    """The Pallas candidates of a use, not compiled yet."""
    xla, *others = operation.candidates(use)
    pallas = [c for c in others if measure.is_pallas(c)]
    assert pallas, use
    return races.make(operation, use, xla, pallas)


def problems(race):
    """What is wrong with each candidate of a race."""
    if race.trial.refused:
        return [race.trial.refused]
    trial, found = race.trial.result(), []
    for candidate, job in race.candidates.items():
        if job.result is None:
            found.append(f"{candidate}: {job.refused or 'was not compiled in time'}")
            continue
        why = trial.problem(job.result)
        once, again = (
            [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(ran)]
            for ran in (job.result.run(*trial.arrays) for _ in range(2))
        )
        why = why or ("" if once == again else "differs from run to run")
        found += [f"{candidate}: {why}"] if why else []
    return found


@pytest.fixture(scope="module")
def gpu():
    if jax.default_backend() != "gpu":
        pytest.skip("no GPU here; JAX_PLATFORMS=cuda,cpu where there is one")


@pytest.fixture(scope="module")
def compiled(gpu):
    """All candidates of all uses, side by side."""
    found = {use: race_of(operations.ALL[use.operation], use) for use in USES}
    jobs = races.in_order(list(found.values()))
    run_all(jobs, each_s=60.0, until=time.monotonic() + 240)
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("use", USES, ids=races.said)
def test_every_kernel_is_right_and_the_same_twice(compiled, use):
    assert problems(compiled[use]) == []


def test_what_is_wrong_with_a_kernel_is_told():
    """Nothing of a strided one, interpreted; of another operation one is off, one fails."""
    static = (("low", (0, 0, 0)), ("strides", (2, 2, 2)))
    use = Use("gather", ((1, 2, 6, 6, 16), (1, 1, 1, 16)), (FULL, FULL), static)
    right = race_of(operations.ALL["gather"], use)
    operation = fake.Scaled(pallas_a=lambda x, *_: x, pallas_b=lambda *_: 1 // 0)
    wrong = race_of(operation, fake.use(2, 3))
    for candidate in list(right.candidates)[:-1]:
        del right.candidates[candidate]  # one is enough
    for race in (right, wrong):
        jobs = (race.trial, *race.candidates.values())
        run_all(jobs, each_s=60.0, until=time.monotonic() + 60)
    assert problems(right) == []
    off, failed = problems(wrong)
    assert "off, 0.0001 is allowed" in off and "ZeroDivisionError" in failed


@pytest.mark.gpu
@pytest.mark.parametrize(
    "dtype, bound", [(FULL, 1e-4), ("float16", 1e-2), ("bfloat16", 1e-1)]
)
@pytest.mark.parametrize("channels", [16, 48])
def test_the_gradients_of_a_block(gpu, dtype, bound, channels):
    kernels = PallasKernels()
    parameters = parameters_of(channels, channels, 2 * channels, (3, 3, 3))
    with jax.default_matmul_precision("float32"):
        compare(
            lambda x, p: fused.stage(x, p, kernels, "block"),
            lambda x, p: blocks.block(x, first(p)),
            image((2, *SIZES, channels), jnp.dtype(dtype)),
            jax.tree.map(lambda leaf: leaf[None], parameters),
            bound,
        )
    assert len(set(kernels.names)) == 5


@pytest.mark.gpu
@pytest.mark.parametrize("strides", STRIDES)
def test_the_gradients_down_and_up(gpu, strides):
    kernels = PallasKernels()
    parameters = parameters_of(16, 32, 32, (3, 3, 3))
    with jax.default_matmul_precision("float32"):
        compare(
            lambda x, p: fused.down_block(x, p, strides, kernels, "block"),
            lambda x, p: blocks.down_block(x, p, strides),
            image((1, 4, 6, 10, 16)),
            parameters,
            1e-4,
        )
        compare(
            lambda x, p: fused.up_block(x, p, strides, kernels, "none"),
            lambda x, p: blocks.up_block(x, p, strides),
            image((1, 3, 4, 5, 16)),
            parameters,
            1e-4,
        )
    assert {"gather", "scatter"} < set(kernels.names)


@pytest.mark.gpu
def test_a_network_by_chosen_kernels_has_the_gradients_of_one_without(gpu):
    arguments = {"size": "S", "channels": 16, "kernel_size": 3}
    arguments |= {"in_channels": 1, "out_channels": 3, "deep_supervision": False}
    params = build.initial_params(arguments, 0)
    images = jax.random.uniform(jax.random.key(0), (1, 32, 32, 32, 1))

    def gradient(kernels):
        apply = build.make_apply(arguments, jnp.float32, remat="block", kernels=kernels)
        return jax.value_and_grad(lambda p, x: (apply(p, x) ** 2).mean())

    recorder = Recorder()
    jax.eval_shape(gradient(recorder), params, images)
    started = time.monotonic()
    found = measure.choose(recorder.operations, recorder.uses, deadline_s=20.0)
    assert time.monotonic() - started < 30
    assert found.final and found.final.items() <= found.fastest.items()
    kernels = Kernels(tuple(found.fastest.items()))
    ours, plain = (jax.jit(gradient(k))(params, images) for k in (kernels, None))
    assert float(ours[0]) == pytest.approx(float(plain[0]), rel=1e-4)
    # Of all together: some, as of a bias that a norm subtracts, are rounding alone.
    ours, plain = (ravel_pytree(found[1])[0] for found in (ours, plain))
    assert float(jnp.linalg.norm(ours - plain)) <= 1e-3 * float(jnp.linalg.norm(plain))
