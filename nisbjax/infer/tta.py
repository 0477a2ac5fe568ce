"""Test-time augmentation by flips, with edges turned back to where they are stored.

In a flipped image the edge v -> v + d is stored at the other end, so un-flipping alone puts
it one offset off (PyTC shifts it likewise; plain sliding-window TTA does not). All eight
flips run through one compiled network in a scan; where the other end lies outside the
window, that flip is left out.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32

from nisbjax.errors import InputError
from nisbjax.typing import Triple

KINDS = ("none", "flips")

Predict = Callable[[Any], Any]  # images [b x y z c] -> predictions [b o x y z]


def mean_over_flips(predict: Predict, offsets: tuple[Triple, ...]) -> Predict:
    """The mean of a window's predictions over all flips of x, y and z.

    Args:
      predict: images [b x y z c] -> affinities [b o x y z], source-stored.
      offsets: of the o channels, x y z.

    Raises:
      InputError: as `require_one_axis_each`.
    """
    require_one_axis_each(offsets)
    every = jnp.array(list(itertools.product((False, True), repeat=3)))

    def averaged(images: Array) -> Float32[Array, "b o x y z"]:
        def add(sums, flags):
            total, count = sums
            flipped = predict(_flip(images, flags, 1))
            predicted, valid = turn_back(flipped, flags, offsets)
            total = total + jnp.where(valid, predicted, 0.0)
            return (total, count + valid.astype(jnp.float32)), None

        shape = (images.shape[0], len(offsets), *images.shape[1:4])
        start = jnp.zeros(shape, jnp.float32), jnp.zeros((1, *shape[1:]), jnp.float32)
        (total, count), _ = jax.lax.scan(add, start, every)
        return total / count

    return averaged


def require_one_axis_each(offsets: Sequence[Triple]) -> None:
    """Refuses edges that a single flip turns into others.

    Raises:
      InputError: an offset along several axes.
    """
    mixed = [offset for offset in offsets if np.count_nonzero(offset) != 1]
    if mixed:
        raise InputError(
            f"predict.tta=flips needs offsets along one axis each; {mixed[0]} is not: set "
            "predict.tta to none"
        )


def turn_back(
    predicted: Float32[Array, "b o x y z"],
    flags: Bool[Array, "3"],
    offsets: tuple[Triple, ...],
) -> tuple[Float32[Array, "b o x y z"], Bool[Array, "1 o x y z"]]:
    """Affinities of a flipped window, in the window's own axes and storage.

    Args:
      predicted: of the flipped image, source-stored in its axes.
      flags: which of x, y, z were flipped.
      offsets: of the channels, each along one axis.

    Returns:
      The affinities, and which of them have both ends inside the window.
    """
    upright = _flip(predicted, flags, 2)
    channels, valid = [], []
    for channel, offset in enumerate(offsets):
        axis = int(np.flatnonzero(offset)[0])
        step, size = offset[axis], predicted.shape[2 + axis]
        # The flipped edge u -> u + d is stored at u + d in our axes: fetch it from there.
        values = upright[:, channel]
        shifted = jnp.roll(values, -step, axis=1 + axis)
        channels.append(jnp.where(flags[axis], shifted, values))
        index = np.arange(size) + step
        line = ((0 <= index) & (index < size)).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        inside = np.broadcast_to(line, predicted.shape[2:])
        valid.append(jnp.asarray(inside) | ~flags[axis])
    return jnp.stack(channels, 1), jnp.stack(valid)[None]


def _flip(values: Array, flags: Bool[Array, "3"], first: int) -> Array:
    """Flips the three axes from `first` on where their flag is set."""
    for axis in range(3):
        values = jnp.where(flags[axis], jnp.flip(values, first + axis), values)
    return values
