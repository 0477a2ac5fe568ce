"""Stages and up blocks of a forward pass that nobody differentiates, in few passes.

Source: the blocks of MedNeXt (arXiv:2303.09975), as in `blocks`; so are their gradients. We
differ in how often a CPU goes through its memory: a stage pads its values once and then
replaces them block by block in place, planes of x at a time; an up block norms and mixes
the phases of its transposed convolution before it interleaves them, at half the channels.

Under `jax.grad`, and on other devices than CPUs, the plain functions run.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nisbjax.models import blocks, depthwise, halo
from nisbjax.models.blocks import Parameters
from nisbjax.models.recomputation import again
from nisbjax.typing import Triple

# Hidden values of one tile. Tiles that a core's cache holds (2^17) lose more to starting
# their loops than they gain; larger ones than this only cost memory.
TILE_VALUES = 1 << 21


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def stage(
    x: Float[Array, "b x y z c"], parameters: Parameters, remat: str | bool
) -> Float[Array, "b x y z c"]:
    """All blocks of a stage, one after the other.

    Args:
      x: values.
      parameters: of `blocks.block`, with an axis of blocks in front.
      remat: what a gradient computes again of each block, a word of `recomputation`.
    """
    return lax.platform_dependent(
        x,
        parameters,
        cpu=_stage_in_place,
        default=functools.partial(plain_stage, remat="none"),
    )


def _stage_forward(x, parameters, remat):
    return jax.vjp(functools.partial(plain_stage, remat=remat), x, parameters)


def _pull_back(_, pullback, gradient):
    return pullback(gradient)


stage.defvjp(_stage_forward, _pull_back)


def plain_stage(
    x: Float[Array, "b x y z c"],
    parameters: Parameters,
    remat: str | bool,
    space: halo.SplitAxis | None = None,
) -> Float[Array, "b x y z c"]:
    """`stage` as it is differentiated, also of a crop that is split over `space`."""

    def body(x, parameters):
        return blocks.block(x, parameters, space, remat), None

    body = again("block", body, remat, prevent_cse=False)
    return lax.scan(body, x, parameters)[0]


def _stage_in_place(x, parameters):
    b, nx, ny, nz, c = x.shape
    low = px, py, pz = [n // 2 for n in parameters["conv1"]["weight"].shape[1:4]]
    padded = jnp.pad(x, [(0, 0), *((n, n) for n in low), (0, 0)])

    def body(padded, parameters):
        weight = parameters["conv1"]["weight"]
        y = depthwise.sum_taps(padded, weight, (1, 1, 1), (nx, ny, nz))
        y, *weights = blocks.folded(y, blocks.moments(y), parameters)
        planes = _planes(nx, ny * nz * weights[0].shape[-1])

        def mix(i, padded):
            sample, x = i // (nx // planes), i % (nx // planes) * planes
            part = lax.dynamic_slice(y, (sample, x, 0, 0, 0), (1, planes, ny, nz, c))
            here = (sample, x + px, py, pz, 0)
            residual = lax.dynamic_slice(padded, here, part.shape)
            z = _mlp(part.reshape(-1, c), sample, *weights).reshape(part.shape)
            return lax.dynamic_update_slice(padded, residual + z, here)

        return lax.fori_loop(0, b * (nx // planes), mix, padded), None

    padded = lax.scan(body, padded, parameters)[0]
    return padded[:, px : px + nx, py : py + ny, pz : pz + nz]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def up_block(
    x: Float[Array, "b x y z c"],
    parameters: Parameters,
    strides: Triple,
    remat: str | bool,
) -> Float[Array, "b u v w d"]:
    """`blocks.up_block`; `remat` as for `stage`."""
    return lax.platform_dependent(
        x,
        parameters,
        cpu=functools.partial(_up_block_by_phases, strides=strides),
        default=functools.partial(blocks.up_block, strides=strides),
    )


def _up_block_forward(x, parameters, strides, remat):
    function = functools.partial(blocks.up_block, strides=strides, remat=remat)
    return jax.vjp(again("block", function, remat), x, parameters)


def _pull_back_up(strides, remat, pullback, gradient):
    return pullback(gradient)


up_block.defvjp(_up_block_forward, _pull_back_up)


def _up_block_by_phases(x, parameters, strides):
    b, nx, ny, nz, c = x.shape
    kernel = parameters["conv1"]["weight"]
    low = tuple(n // 2 - (s - 1) for n, s in zip(kernel.shape[:3], strides))
    phases = depthwise.scatter_phases(x, kernel, strides, low)
    # What the low planes hold will be cleared; for the moments, a value like the others.
    common = phases[-1][:, nx // 2, ny // 2, nz // 2].reshape(b, 1, 1, 1, c)
    places = list(itertools.product(*map(range, strides)))
    phases = [
        _low_planes_set(p, place, strides, common) for p, place in zip(phases, places)
    ]
    statistics = _moments_of_phases(phases, places, strides, common.reshape(b, c))
    folded = [blocks.folded(values, statistics, parameters) for values in phases]
    phases, weights = [values for values, *_ in folded], folded[0][1:]
    residual = parameters["res_conv"]
    weight, bias = (residual[n].astype(x.dtype) for n in ("weight", "bias"))
    outputs = weight.shape[-1]
    planes = _planes(nx, math.prod(strides) * ny * nz * weights[0].shape[-1])
    part = (1, planes, ny, nz, c)

    def mix(i, fine):
        sample, first = i // (nx // planes), i % (nx // planes) * planes
        here = (sample, first, 0, 0, 0)
        parts = [lax.dynamic_slice(p, here, part).reshape(-1, c) for p in phases]
        z = _mlp(jnp.concatenate(parts), sample, *weights) + bias[None]
        # The transposed 1x1 convolution reaches the last phase only.
        reached = lax.dynamic_slice(x, here, part) @ weight
        z = z.reshape(len(phases), *reached.shape).at[-1].add(reached)
        z = depthwise.interleave(z, strides)
        plane = lax.broadcasted_iota(jnp.int32, (1, z.shape[1], 1, 1, 1), 1)
        z = depthwise.clear_low_planes(z, (1, *strides[1:]))
        z = jnp.where(
            plane + strides[0] * first >= strides[0] - 1, z, jnp.zeros_like(z)
        )
        return lax.dynamic_update_slice(fine, z, (sample, strides[0] * first, 0, 0, 0))

    shape = (b, *(n * s for n, s in zip((nx, ny, nz), strides)), outputs)
    return lax.fori_loop(0, b * (nx // planes), mix, jnp.zeros(shape, x.dtype))


def _low_planes_set(values, place, strides, common):
    """One phase, `common` where it lies in the first stride - 1 fine planes of an axis."""
    for axis, (f, s) in enumerate(zip(place, strides), start=1):
        if f < s - 1:
            inside = lax.broadcasted_iota(jnp.int32, values.shape, axis) > 0
            values = jnp.where(inside, values, common)
    return values


def _moments_of_phases(phases, places, strides, common):
    """Mean and variance of all phases together, without the planes set to `common`.

    Those stand in the sums of their phase and are taken out again: with d the distance of
    its mean from `common`, n of N values counted, the mean is common + d N / n and the
    squares are less by d^2 N (N - n) / n. `common` is one of the values, so d is not large
    beside their spread and nothing is lost, however far from zero they are.

    An axis of three coarse voxels and stride 2: phase 0 lacks the first fine plane, where
    it holds `common` = 1.

        phase 0   1 3 5   mean 3, d = 2: 1 + 2 * 3 / 2 = 4, the mean of 3 and 5;
                          squares 8, less 2^2 * 3 * 1 / 2: 2 = (3 - 4)^2 + (5 - 4)^2
        phase 1   2 4 6   mean 4, squares 8
        together          mean (2 * 4 + 3 * 4) / 5 = 4, variance (2 + 8) / 5 = 2
    """
    shape = phases[0].shape[1:4]
    everything = math.prod(shape)
    counts, means, squares = [], [], []
    for place, values in zip(places, phases):
        count = math.prod(n - (f < s - 1) for n, f, s in zip(shape, place, strides))
        if count:
            mean, variance = blocks.moments(values)
            distance = mean - common
            taken = distance**2 * ((everything - count) / count)
            counts.append(count)
            means.append(common + distance * (everything / count))
            squares.append(everything * jnp.maximum(variance - taken, 0))
    total = sum(counts)
    shares = jnp.array([count / total for count in counts]).reshape(-1, 1, 1)
    mean = common + ((jnp.stack(means) - common[None]) * shares).sum(0)
    between = (jnp.stack(means) - mean[None]) ** 2 * shares
    return mean, jnp.stack(squares).sum(0) / total + between.sum(0)


def _mlp(y, sample, weight2, bias2, weight3, bias3):
    hidden = jnp.matmul(y, weight2[sample]) + bias2[sample][None]
    return jnp.matmul(blocks.gelu(hidden), weight3) + bias3[None]


def _planes(planes: int, values: int) -> int:
    """Planes of x in a tile, a divisor of them all; one plane has so many values."""
    wanted = min(planes, max(1, TILE_VALUES // values))
    while planes % wanted:
        wanted -= 1
    return wanted
