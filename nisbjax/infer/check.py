"""What a prediction is refused for, asked before its manifest and its files are begun.

Shapes and memory are arithmetic, and the network is asked in the abstract: it is traced, not
computed. PyTC and BANIS find out in the middle of their first batch, with the output begun.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from nisbjax.data.normalization import Normalization
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer import tta
from nisbjax.infer.device_memory import free_bytes
from nisbjax.infer.network import Network
from nisbjax.infer.tiles import Layout, tile_shape
from nisbjax.infer.windows import Grid
from nisbjax.store.volume import Volume
from nisbjax.typing import Section, Triple


def check(
    section: Section,
    network: Network,
    image: Volume,
    grid: Grid,
    region: Box,
    *,
    chunk: Triple,
    normalization: Normalization,
    offsets: tuple[Triple, ...],
) -> None:
    """Refuses what prediction could not finish, without writing or computing anything.

    Args:
      section: `predict`.
      network: whose logits are asked for.
      image: [x y z c].
      grid: of windows over it.
      region: the part that is predicted.
      chunk: of the output, x y z.
      normalization: of the image.
      offsets: of the network's channels, as far as they are known.

    Raises:
      InputError: a region outside the image, windows that memory does not hold or the
        network does not take, channels that the network does not have or that cannot be
        turned by flips, or an image that `data.normalize` cannot scale.
    """
    if not Box.whole(grid.shape).contains(region) or region.empty:
        raise InputError(
            f"predict.roi {region} is not inside the image, {Box.whole(grid.shape)}"
        )
    shape = (len(section.channels), *region.shape)
    x, y, z = map(min, chunk, region.shape)
    layout = Layout(shape, np.dtype(section.dtype), (x, y, z))
    batch = section.batch_per_device * jax.local_device_count()
    free = free_bytes(jax.local_devices()[0])  # the network is not compiled yet
    read_as = normalization.dtype(image)
    tile_shape(
        Layout(image.shape, read_as, image.spatial_chunks),
        layout,
        grid,
        batch=batch,
        memory_bytes=_bytes(section),
        device_bytes=free,
    )
    asked = jax.ShapeDtypeStruct((1, *grid.window, image.shape[-1]), jnp.float32)
    logits = jax.eval_shape(network.apply, network.params, asked)
    if logits.shape[1:4] != grid.window:
        raise InputError(
            f"the network answers predict.window={grid.window} with {logits.shape[1:4]}; "
            "wanted the same shape"
        )
    if max(section.channels) >= logits.shape[-1]:
        raise InputError(
            f"predict.channels is {tuple(section.channels)} for a network of "
            f"{logits.shape[-1]} output channels; wanted some of 0 to "
            f"{logits.shape[-1] - 1}"
        )
    if section.tta == "flips":
        if max(section.channels) >= len(offsets):
            raise InputError(
                f"predict.tta=flips needs the offset of each of predict.channels="
                f"{tuple(section.channels)}, and data.offsets names "
                f"{len(offsets)}; add theirs, or set predict.tta to none"
            )
        tta.require_one_axis_each([offsets[c] for c in section.channels])
    if not normalization.reads:  # others read the volume
        normalization.applied(image)


def _bytes(section: Section) -> int:
    """The memory budget, less what the weights of a window take.

    Raises:
      InputError: they alone take more.
    """
    budget = int(section.memory_gb * 1e9)
    weights = 4 * math.prod(section.window)
    if weights >= budget:
        raise InputError(
            f"predict.window is {tuple(section.window)}, whose weights alone take "
            f"{weights / 1e9:.3g} GB, and predict.memory_gb is {section.memory_gb:g}; "
            "wanted a smaller window or more memory"
        )
    return budget
