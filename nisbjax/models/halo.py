"""A crop whose x axis lies on several devices: what they exchange, and what they agree on.

Before a depthwise convolution a device fetches the planes beyond its own: one `ppermute`
to each side that the kernel reaches to, where XLA's partitioner, left alone, emits 37 to
591 of them. Norms gather each device's mean and variance. Levels of few planes are not
worth the messages and are computed whole on every device. BANIS and PyTC cannot split a
crop at all, so that its size is bounded by one GPU's memory.

Everything here runs under `shard_map` with `check_vma=False`: the derivative of a device's
part by what it fetched is sent back to where it came from.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from nisbjax.errors import InputError
from nisbjax.models.depthwise import (
    clear_low_planes,
    depthwise,
    depthwise_transposed,
    gather,
    scatter,
)
from nisbjax.typing import Triple

# Levels of so many planes or fewer are computed whole on every device.
WHOLE = 16


class SplitAxis(NamedTuple):
    """The mesh axis that splits x, and over how many devices."""

    axis: str
    size: int


def levels(
    planes: int, strides: Sequence[Triple], kernels: Sequence[Triple], space: SplitAxis
) -> list[SplitAxis | None]:
    """How each level of a network lies: split over `space`, or None for whole.

    Args:
      planes: of the whole crop in x.
      strides: from each level to the next.
      kernels: of each level, one more than strides.

    Raises:
      InputError: the crop cannot be split so.
    """
    split: list[SplitAxis | None] = []
    for level, kernel in enumerate(kernels):
        if planes <= WHOLE or split[-1:] == [None]:
            split.append(None)
        else:
            split.append(space)
            stride = strides[level][0] if level < len(strides) else 1
            own = planes // space.size
            if planes % (space.size * stride) or own < kernel[0] // 2 + 1:
                raise InputError(
                    f"a crop has {planes} planes in x at level {level}, which {space.size} "
                    f"devices (train.mesh, space) cannot share before a stride of {stride}; "
                    "choose another data.patch or fewer devices"
                )
        planes //= strides[level][0] if level < len(strides) else 1
    if split[0] is None:
        raise InputError(
            f"a crop of {WHOLE} planes in x or fewer is not split over devices; set space "
            "in train.mesh to 1, or choose a larger data.patch"
        )
    return split


def fetch(
    x: Float[Array, "b x y z c"], before: int, after: int, space: SplitAxis
) -> Float[Array, "b w y z c"]:
    """x with so many planes of its neighbours on either side; zeros beyond the crop."""
    parts = [x]
    own = x.shape[1]
    if before:
        upwards = [(i, i + 1) for i in range(space.size - 1)]
        parts.insert(0, lax.ppermute(x[:, own - before :], space.axis, upwards))
    if after:
        downwards = [(i + 1, i) for i in range(space.size - 1)]
        parts.append(lax.ppermute(x[:, :after], space.axis, downwards))
    return jnp.concatenate(parts, axis=1) if len(parts) > 1 else x


def whole(x: Float[Array, "b x y z c"], space: SplitAxis) -> Float[Array, "b w y z c"]:
    """All planes, on every device."""
    return lax.all_gather(x, space.axis, axis=1, tiled=True)


def own_part(
    x: Float[Array, "b w y z c"], space: SplitAxis
) -> Float[Array, "b x y z c"]:
    """A device's planes of what all of them have whole.

    Raises:
      InputError: there are not as many for each.
    """
    own, left = divmod(x.shape[1], space.size)
    if left:
        raise InputError(
            f"{x.shape[1]} planes in x are not shared evenly by {space.size} devices "
            "(train.mesh, space); choose another data.patch or fewer devices"
        )
    return lax.dynamic_slice_in_dim(x, lax.axis_index(space.axis) * own, own, axis=1)


def convolved(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    space: SplitAxis | None,
) -> Float[Array, "b u v w c"]:
    """`depthwise` of a crop that is split over `space`, or whole for None."""
    if space is None:
        return depthwise(x, weight, strides)
    size, stride, own = weight.shape[0], strides[0], x.shape[1]
    before, low_y, low_z = (k // 2 for k in weight.shape[:3])
    x = fetch(x, before, max(0, size - stride - before), space)
    # Sizes must be divisible by the strides; outputs that see this padding are cut off.
    missing = -x.shape[1] % stride
    x = jnp.pad(x, [(0, 0), (0, missing), (0, 0), (0, 0), (0, 0)])
    outputs = gather(x, weight, strides, (0, low_y, low_z))
    return lax.slice_in_dim(outputs, 0, own // stride, axis=1)


def convolved_transposed(
    x: Float[Array, "b x y z c"],
    weight: Float[Array, "i j k c"],
    strides: Triple,
    space: SplitAxis | None,
) -> Float[Array, "b u v w c"]:
    """`depthwise_transposed` of a crop that is split over `space`, or whole for None."""
    if space is None:
        return depthwise_transposed(x, weight, strides)
    size, stride, own = weight.shape[0], strides[0], x.shape[1]
    low, low_y, low_z = (k // 2 - (s - 1) for k, s in zip(weight.shape[:3], strides))
    # Fine position f of a coarse one takes tap t of its neighbour (f + low - t) / stride.
    before = max(0, (size - 1 - low) // stride)
    x = fetch(x, before, max(0, (stride - 1 + low) // stride), space)
    fine = scatter(x, weight, strides, (low, low_y, low_z))
    start = before * stride
    fine = lax.slice_in_dim(fine, start, start + own * stride, axis=1)
    return cleared(fine, strides, space)


def cleared(
    x: Float[Array, "b x y z c"], strides: Triple, space: SplitAxis | None
) -> Float[Array, "b x y z c"]:
    """`clear_low_planes` of a crop that is split over `space`, or whole for None."""
    if space is None:
        return clear_low_planes(x, strides)
    x = clear_low_planes(x, (1, *strides[1:]))
    return jnp.where(_counted(x, strides[0] - 1, space), x, jnp.zeros((), x.dtype))


def _counted(x: Array, skipped: int, space: SplitAxis) -> Array:
    """False for the crop's first planes, which the first device has."""
    plane = lax.broadcasted_iota(jnp.int32, (1, x.shape[1], 1, 1, 1), 1)
    return (plane >= skipped) | (lax.axis_index(space.axis) > 0)


def moments(
    y: Float[Array, "b x y z c"], skipped: int, space: SplitAxis
) -> tuple[Float32[Array, "b c"], Float32[Array, "b c"]]:
    """Mean and biased variance over space, all devices together, in float32.

    Args:
      y: a device's planes.
      skipped: planes at the low end of the whole crop that do not count.
      space: that splits it.
    """
    return _moments(y, skipped, space)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _moments(y, skipped, space):
    values = y.astype(jnp.float32)
    b, *shape, c = y.shape
    counted = _counted(y, skipped, space)
    first = lax.axis_index(space.axis) == 0
    count = math.prod(shape[1:]) * (shape[0] - jnp.where(first, skipped, 0))
    mean = jnp.where(counted, values, 0.0).sum(3).sum((1, 2)) / count
    centred = jnp.where(counted, values - mean.reshape(b, 1, 1, 1, c), 0.0)
    squares = (centred * centred).sum(3).sum((1, 2))
    means, squares = lax.all_gather(jnp.stack([mean, squares]), space.axis, axis=1)
    # Of each device; the first has fewer planes that count.
    counts = jnp.full((space.size, 1, 1), math.prod(shape), jnp.float32)
    counts = counts.at[0].add(-skipped * math.prod(shape[1:]))
    total = _count(y, skipped, space)
    mean = (means * counts).sum(0) / total
    between = (means - mean[None]) ** 2 * counts
    return mean, (squares + between).sum(0) / total


def _count(y: Array, skipped: int, space: SplitAxis) -> int:
    _, planes, *others, _ = y.shape
    return (planes * space.size - skipped) * math.prod(others)


def _moments_forward(y, skipped, space):
    mean, variance = moments(y, skipped, space)
    return (mean, variance), (y, mean)


def _moments_backward(skipped, space, residuals, gradients):
    y, mean = residuals
    b, c = mean.shape
    # Every device used the moments for its own planes.
    gradients = lax.psum(jnp.stack(gradients), space.axis)
    by_mean, by_variance = (g.reshape(b, 1, 1, 1, c) for g in gradients)
    centred = y.astype(jnp.float32) - mean.reshape(b, 1, 1, 1, c)
    g = (by_mean + 2 * by_variance * centred) / _count(y, skipped, space)
    return (jnp.where(_counted(y, skipped, space), g, 0.0).astype(y.dtype),)


_moments.defvjp(_moments_forward, _moments_backward)
