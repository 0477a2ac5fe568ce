"""Depthwise 3-D convolution, strided and transposed, as shifted multiply-adds.

Source: the depthwise layers of MedNeXt (arXiv:2303.09975), there `torch.nn.Conv3d` and
`ConvTranspose3d` with `groups = channels`. We differ: XLA's grouped convolution is more
than ten times slower on a CPU, so a kernel tap is one shifted, scaled copy and XLA fuses
their sum into one loop. A strided convolution reads only what it keeps, a transposed one
is computed phase by phase and never multiplies an inserted zero, and all three gradients
are written out in the same way. Sums are taken in float32 whatever the dtype.

Notation: a kernel tap t links position `stride * o + t - low` on the fine side with o on
the coarse side. `gather` goes fine to coarse, `scatter` is its adjoint.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from nisbjax.typing import Triple

# Rows added up in one visit to an accumulator of the weight gradient on a CPU: fewer
# spend their time on loading and storing it, more do not fit the cache.
ROWS = 16
# Taps of one fused sum: those of larger kernels take one loop step per plane, or their
# compilation would take minutes.
UNROLLED = 27


def depthwise(
    x: Float[Array, "b x y z c"], weight: Float[Array, "i j k c"], strides: Triple
) -> Float[Array, "b u v w c"]:
    """Convolves every channel with its own odd kernel; u = x / stride.

    Zero padding of half a kernel, as `Conv3d(padding=k // 2, groups=c)`; sizes must be
    divisible by the strides. The result has x's dtype.
    """
    i, j, k = (size // 2 for size in weight.shape[:3])
    return gather(x, weight, strides, (i, j, k))


def depthwise_transposed(
    x: Float[Array, "b x y z c"], weight: Float[Array, "i j k c"], strides: Triple
) -> Float[Array, "b u v w c"]:
    """Transposed convolution of every channel; u = x * stride, planes below s - 1 zero.

    `ConvTranspose3d(padding=k // 2, groups=c)` yields (x - 1) * stride + 1 positions;
    MedNeXt then pads stride - 1 planes of zeros on the low side of each axis, and so
    does this. The kernel is oriented as torch stores it.
    """
    i, j, k = (n // 2 - (s - 1) for n, s in zip(weight.shape[:3], strides))
    return clear_low_planes(scatter(x, weight, strides, (i, j, k)), strides)


def clear_low_planes(
    x: Float[Array, "b x y z c"], strides: Triple
) -> Float[Array, "b x y z c"]:
    """Sets the first stride - 1 planes of each spatial axis to zero."""
    keep = None
    for axis, stride in enumerate(strides, start=1):
        if stride > 1:
            inside = lax.broadcasted_iota(jnp.int32, x.shape, axis) >= stride - 1
            keep = inside if keep is None else keep & inside
    return x if keep is None else jnp.where(keep, x, jnp.zeros((), x.dtype))


def gather(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    low: Triple,
) -> Float[Array, "b u v w c"]:
    """Sum over taps of weight[t] * x[stride * o + t - low], zero outside; u = x / stride.

    Sizes must be divisible by the strides.
    """
    return _gather(x, weight, strides, low)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _gather(x, weight, strides, low):
    return _gathered(x, weight, strides, low)


def _gather_forward(x, weight, strides, low):
    return _gathered(x, weight, strides, low), (x, weight)


def _gather_backward(strides, low, residuals, g):
    x, weight = residuals
    return (
        _scattered(g, weight, strides, low),
        _weight_gradient(x, g, weight, strides, low),
    )


_gather.defvjp(_gather_forward, _gather_backward)


def scatter(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    low: Triple,
) -> Float[Array, "b u v w c"]:
    """The adjoint: weight[t] * x[o] added up at stride * o + t - low; u = x * stride."""
    return _scatter(x, weight, strides, low)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _scatter(x, weight, strides, low):
    return _scattered(x, weight, strides, low)


def _scatter_forward(x, weight, strides, low):
    return _scattered(x, weight, strides, low), (x, weight)


def _scatter_backward(strides, low, residuals, g):
    x, weight = residuals
    return (
        _gathered(g, weight, strides, low),
        _weight_gradient(g, x, weight, strides, low),
    )


_scatter.defvjp(_scatter_forward, _scatter_backward)


def _taps(kernel: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(size) for size in kernel))


def _scaled(x: jax.Array, weight: jax.Array, tap: tuple[int, ...]) -> jax.Array:
    scale = weight[tap].astype(jnp.float32)
    return x.astype(jnp.float32) * scale.reshape((1,) * (x.ndim - 1) + scale.shape)


def _pad_fine(x, kernel, strides, low):
    """Pads so that tap t of coarse position o stands at stride * o + t."""
    pads = [
        (before, size - s + k - before - size, 0)
        for size, k, s, before in zip(x.shape[1:4], kernel, strides, low)
    ]
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, [(0, 0, 0), *pads, (0, 0, 0)])


def _gathered(x, weight, strides, low):
    coarse = tuple(size // s for size, s in zip(x.shape[1:4], strides))
    padded = _pad_fine(x, weight.shape[:3], strides, low)
    return sum_taps(padded, weight, strides, coarse)


def sum_taps(
    padded: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    shape: Triple,
) -> Float[Array, "b u v w c"]:
    """Sum over taps of weight[t] * padded[stride * o + t], of so many positions o."""
    kernel = weight.shape[:3]

    def plane(padded, weight):
        """Sum over the taps of one plane of the kernel (or of several)."""
        terms = []
        for tap in _taps(weight.shape[:3]):
            stop = [t + s * (n - 1) + 1 for t, s, n in zip(tap, strides, shape)]
            limit = (padded.shape[0], *stop, padded.shape[4])
            window = lax.slice(padded, (0, *tap, 0), limit, (1, *strides, 1))
            terms.append(_scaled(window, weight, tap))
        return functools.reduce(jnp.add, terms)

    if math.prod(kernel) <= UNROLLED:
        return plane(padded, weight).astype(padded.dtype)

    def add_plane(i, total):
        length = strides[0] * (shape[0] - 1) + 1
        part = lax.dynamic_slice_in_dim(padded, i, length, axis=1)
        return total + plane(part, lax.dynamic_slice_in_dim(weight, i, 1))

    zeros = jnp.zeros((padded.shape[0], *shape, padded.shape[4]), jnp.float32)
    return lax.fori_loop(0, kernel[0], add_plane, zeros).astype(padded.dtype)


def _scattered(x, weight, strides, low):
    kernel = weight.shape[:3]
    if strides == (1, 1, 1):
        mirrored = tuple(k - 1 - before for k, before in zip(kernel, low))
        return _gathered(x, weight[::-1, ::-1, ::-1], strides, mirrored)
    return interleave(jnp.stack(scatter_phases(x, weight, strides, low)), strides)


def phase_links(kernel: int, stride: int, low: int) -> list[list[tuple[int, int]]]:
    """(tap, distance) pairs of each phase of an axis.

    Fine position stride * q + f receives tap t of coarse position q + d, d = (f + low - t)
    / stride, where that division is exact: the phases f see disjoint taps.
    """
    return [
        [
            (t, (f + low - t) // stride)
            for t in range(kernel)
            if (f + low - t) % stride == 0
        ]
        for f in range(stride)
    ]


def scatter_phases(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    low: Triple,
) -> list[Float[Array, "b x y z c"]]:
    """`scatter` before `interleave`: one array for each phase of a stride, in C order."""
    kernel = weight.shape[:3]
    shifts = [phase_links(*axis) for axis in zip(kernel, strides, low)]
    reach = [[d for phase in axis for _, d in phase] for axis in shifts]
    before = [max(0, -min(d)) for d in reach]
    after = [max(0, max(d)) for d in reach]
    pads = [(0, 0, 0), *((b, a, 0) for b, a in zip(before, after)), (0, 0, 0)]
    padded = lax.pad(x, jnp.zeros((), x.dtype), pads)
    phases = []
    for phase in itertools.product(*shifts):
        total = None
        for links in itertools.product(*phase):
            tap = tuple(t for t, _ in links)
            start = [d + b for (_, d), b in zip(links, before)]
            stop = [first + n for first, n in zip(start, x.shape[1:4])]
            window = lax.slice(padded, (0, *start, 0), (x.shape[0], *stop, x.shape[4]))
            term = _scaled(window, weight, tap)
            total = term if total is None else total + term
        phases.append(jnp.zeros_like(x) if total is None else total.astype(x.dtype))
    return phases


def interleave(
    phases: Float[Array, "p b x y z c"], strides: Triple
) -> Float[Array, "b u v w c"]:
    """Puts phase (i, j, k) of each axis' stride at fine positions stride * q + (i, j, k).

    p = product of the strides, phases in C order; u = x * stride.
    """
    _, b, x, y, z, c = phases.shape
    mixed = phases.reshape(*strides, b, x, y, z, c).transpose(3, 4, 0, 5, 1, 6, 2, 7)
    return mixed.reshape(b, x * strides[0], y * strides[1], z * strides[2], c)


def _weight_gradient(fine, coarse, weight, strides, low):
    gradient = weight_gradient(
        fine, coarse, kernel=weight.shape[:3], strides=strides, low=low
    )
    return gradient.astype(weight.dtype)


def weight_gradient(
    fine: Float[Array, "b x y z c"],
    coarse: Float[Array, "b u v w c"],
    *,
    kernel: Triple,
    strides: Triple,
    low: Triple,
) -> Float32[Array, "i j k c"]:
    """Sum over coarse positions of coarse[o] * fine[stride * o + tap - low]."""
    padded = _pad_fine(fine, kernel, strides, low)
    gradient = lax.platform_dependent(
        padded,
        coarse,
        cpu=functools.partial(_reduce_rows, kernel=kernel, strides=strides),
        default=functools.partial(_reduce_each_tap, kernel=kernel, strides=strides),
    )
    return gradient.reshape(*kernel, fine.shape[-1])


def _reduce_each_tap(padded, coarse, kernel, strides):
    sums = []
    for tap in _taps(kernel):
        stop = [t + s * (n - 1) + 1 for t, s, n in zip(tap, strides, coarse.shape[1:4])]
        window = lax.slice(
            padded,
            (0, *tap, 0),
            (padded.shape[0], *stop, padded.shape[4]),
            (1, *strides, 1),
        )
        product = window.astype(jnp.float32) * coarse.astype(jnp.float32)
        # Rows first: two short sums lose less than one long sum.
        sums.append(product.sum((2, 3)).sum((0, 1)))
    return jnp.stack(sums)


def _reduce_rows(padded, coarse, kernel, strides):
    """One loop over (block of rows, tap), whose body is a single fused sum over rows.

    XLA does not keep the accumulators of many taps in registers, so each visit adds
    `ROWS` products to the (z, c) accumulator of one tap; the block stays in the cache
    for all taps. One small body also compiles in a fifth of the time of all taps.
    """
    b, nx, ny, nz, c = coarse.shape
    sx, sy, sz = strides
    taps = math.prod(kernel)
    rows = math.gcd(ny, ROWS)
    length = sz * (nz - 1) + 1
    # Where each visit reads, as rows of (z, c): computed once, not in the loop.
    sample, x, y, i, j, k = jnp.unravel_index(
        jnp.arange(b * nx * (ny // rows) * taps), (b, nx, ny // rows, *kernel)
    )
    near_row = (sample * padded.shape[1] + sx * x + i) * padded.shape[2]
    near_row += sy * rows * y + j
    value_row = (sample * nx + x) * ny + rows * y
    tap = (i * kernel[1] + j) * kernel[2] + k
    visits = jnp.stack([near_row, k, value_row, tap], axis=1)
    padded = padded.reshape(-1, *padded.shape[3:])
    coarse = coarse.reshape(-1, nz, c)

    def add_rows(sums, visit):
        near_row, k, value_row, tap = visit
        total = lax.dynamic_slice(sums, (tap, 0, 0), (1, nz, c))
        for row in range(rows):
            near = lax.dynamic_slice(
                padded, (near_row + sy * row, k, 0), (1, length, c)
            )
            value = lax.dynamic_slice(coarse, (value_row + row, 0, 0), (1, nz, c))
            total += near[:, ::sz].astype(jnp.float32) * value.astype(jnp.float32)
        return lax.dynamic_update_slice(sums, total, (tap, 0, 0)), None

    zeros = jnp.zeros((taps, nz, c), jnp.float32)
    return lax.scan(add_rows, zeros, visits)[0].sum(1)
