"""What a prediction is refused for, asked before its manifest and its files are begun.

Shapes and memory are arithmetic, and the network is asked in the abstract: it is traced, not
computed. PyTC and BANIS find out in the middle of their first batch, with the output begun.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nisbjax.data.intensity import intensity_range
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer.predict import tile_shape
from nisbjax.infer.windows import Grid
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple


class Layout(NamedTuple):
    """Of an output that is not made yet.

    Attributes:
      shape: c x y z.
      dtype: its type.
      spatial_chunks: x y z.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    spatial_chunks: Triple


def check(
    config: Any,
    apply: Callable[[Any, Any], Any],
    params: Any,
    image: Volume,
    grid: Grid,
    region: Box,
    chunk: Triple,
) -> None:
    """Refuses what prediction could not finish, without writing or computing anything.

    Args:
      config: keys `predict` and `data.normalize`.
      apply: the network, (params, images [b x y z c]) -> logits [b x y z o].
      params: its parameters.
      image: [x y z c].
      grid: of windows over it.
      region: the part that is predicted.
      chunk: of the output, x y z.

    Raises:
      InputError: a region outside the image, windows that memory does not hold or the
        network does not take, channels that the network does not have, or an image that
        `data.normalize` cannot scale.
    """
    settings = config.predict
    if not Box.whole(grid.shape).contains(region) or region.empty:
        raise InputError(
            f"predict.roi {region} is not inside the image, {Box.whole(grid.shape)}"
        )
    shape = (len(settings.channels), *region.shape)
    x, y, z = map(min, chunk, region.shape)
    layout = Layout(shape, np.dtype(settings.dtype), (x, y, z))
    batch = settings.batch_per_device * jax.local_device_count()
    tile_shape(image, layout, grid, batch=batch, memory_bytes=_bytes(settings))
    asked = jax.ShapeDtypeStruct((1, *grid.window, image.shape[-1]), jnp.float32)
    logits = jax.eval_shape(apply, params, asked)
    if logits.shape[1:4] != grid.window:
        raise InputError(
            f"the network answers predict.window={grid.window} with {logits.shape[1:4]}; "
            "wanted the same shape"
        )
    if max(settings.channels) >= logits.shape[-1]:
        raise InputError(
            f"predict.channels is {tuple(settings.channels)} for a network of "
            f"{logits.shape[-1]} output channels; wanted some of 0 to "
            f"{logits.shape[-1] - 1}"
        )
    if settings.tta == "flips" and max(settings.channels) >= len(config.data.offsets):
        raise InputError(
            f"predict.tta=flips needs the offset of each of predict.channels="
            f"{tuple(settings.channels)}, and data.offsets names "
            f"{len(config.data.offsets)}; add theirs, or set predict.tta to none"
        )
    if config.data.normalize == "divide_255":  # others read the volume
        intensity_range(image, config.data.normalize)


def _bytes(settings: Any) -> int:
    """The memory budget, less what the weights of a window take.

    Raises:
      InputError: they alone take more.
    """
    budget = int(settings.memory_gb * 1e9)
    weights = 4 * math.prod(settings.window)
    if weights >= budget:
        raise InputError(
            f"predict.window is {tuple(settings.window)}, whose weights alone take "
            f"{weights / 1e9:.3g} GB, and predict.memory_gb is {settings.memory_gb:g}; "
            "wanted a smaller window or more memory"
        )
    return budget
