"""From grey values to a network's inputs, and from its logits to affinities.

One compiled program for a batch of windows: images travel as they are stored, and are
scaled, predicted and activated on the device. `sigmoid(0.2 x)` follows BANIS
`inference.py`, which predicts under float16 autocast; here scaling, activation and means
are float32 whatever the network computes in.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float32, Shaped

from nisbjax.data.intensity import normalized
from nisbjax.data.normalization import Normalization
from nisbjax.errors import InputError
from nisbjax.infer.tta import mean_over_flips
from nisbjax.parallel import compiler
from nisbjax.parallel.devices import DATA
from nisbjax.typing import Triple

Apply = Callable[[Any, Any], Any]  # (params, images [b x y z c]) -> logits [b x y z o]

ACTIVATIONS = {
    # A plain sigmoid saturates in half precision (BANIS `scale_sigmoid`).
    "scale_sigmoid": lambda logits, scale: jax.nn.sigmoid(scale * logits),
    "sigmoid": lambda logits, scale: jax.nn.sigmoid(logits),
    "none": lambda logits, scale: logits,
}


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What becomes of grey values before the network, and of logits behind it.

    Attributes:
      normalization: of the grey values.
      channels: of the logits that are kept, in this order.
      activation: `scale_sigmoid` is sigmoid(scale x logit), which does not saturate in
        half precision; `sigmoid`; `none`.
      scale: of `scale_sigmoid`.
      blend: weights of overlapping windows, see `window_weights`.
      flips: offsets of the kept channels, to average over all flips of each window (see
        `tta`); None for one prediction of it.
    """

    normalization: Normalization = dataclasses.field(default_factory=Normalization)
    channels: tuple[int, ...] = (0, 1, 2)
    activation: str = "scale_sigmoid"
    scale: float = 0.2
    blend: str = "distance"
    flips: tuple[Triple, ...] | None = None


DEFAULT = Conversion()


@functools.lru_cache(maxsize=4)
def make_program(
    apply: Apply, conversion: Conversion, mesh: Mesh | None
) -> Callable[..., Any]:
    """Compiled (params, scale [4], weights [x y z], images [b x y z c]) -> [b o x y z].

    That is predictions x weights of their voxels, in float32.

    Args:
      apply: the network, `(params, images [b x y z c] float32) -> logits [b x y z o]`.
      conversion: of its inputs and logits; the `Scale` is given to the program.
      mesh: devices; a batch is split over its axis `data`. None for one device.

    Raises:
      InputError: an unknown activation; when it is traced, a network that answers windows
        with another shape, or that has not all the channels.
    """
    if conversion.activation not in ACTIVATIONS:
        raise InputError(
            f"predict.activation={conversion.activation!r} is not one of "
            f"{sorted(ACTIVATIONS)}"
        )

    def predict(
        params: Any,
        scale: Float32[Array, "4"],
        weights: Float32[Array, "x y z"],
        images: Shaped[Array, "b x y z c"],
    ) -> Float32[Array, "b o x y z"]:
        scales = jnp.broadcast_to(scale[None], (images.shape[0], 4))
        answer = functools.partial(_predict_once, apply, conversion, params)
        if conversion.flips is not None:
            answer = mean_over_flips(answer, conversion.flips)
        return answer(normalized(images, scales)) * weights[None, None]

    options = compiler.network()
    if mesh is None:
        return jax.jit(predict, compiler_options=options)
    whole, rows = PartitionSpec(), PartitionSpec(DATA)
    # Each device runs the one-device program on its share: equal devices, equal bits.
    shared = jax.shard_map(
        predict,
        mesh=mesh,
        in_specs=(whole, whole, whole, rows),
        out_specs=rows,
        check_vma=False,
    )
    return jax.jit(shared, compiler_options=options)


def _predict_once(
    apply: Apply,
    conversion: Conversion,
    params: Any,
    images: Float32[Array, "b x y z c"],
) -> Float32[Array, "b o x y z"]:
    logits = apply(params, images)
    if logits.shape[:4] != images.shape[:4]:
        raise InputError(
            f"the network answers windows of {images.shape[1:4]} with "
            f"{logits.shape[1:4]}; wanted the same shape"
        )
    channels = conversion.channels
    if min(channels) < 0 or max(channels) >= logits.shape[-1]:
        raise InputError(
            f"predict.channels={channels} were asked of a network with "
            f"{logits.shape[-1]} output channels"
        )
    kept = logits[..., np.asarray(channels)].astype(jnp.float32)
    activate = ACTIVATIONS[conversion.activation]
    return activate(jnp.moveaxis(kept, -1, 1), jnp.float32(conversion.scale))
