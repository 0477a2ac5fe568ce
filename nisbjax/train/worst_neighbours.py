"""Same-class neighbour penalisation: each edge answers for the worst of its neighbourhood.

Valverde et al., "Towards High-Quality Image Segmentation: Improving Topology Accuracy by
Penalizing Neighbor Pixels" (SCNP, CVPR 2026, arXiv 2603.18671): before the loss, the logit of
a positive becomes the lowest among the positives around it, that of a negative the highest
among the negatives, so that one wrong edge, which merges two neurites or cuts one, weighs as
much as all that it can reach. Theirs pools with -9999 in place of the other class; here
unknown edges are left out too, and are no one's neighbours. Five edges along z, window 3:

    logits      2.0   -1.0   3.0  |  0.5   -4.0
    class        +      +     +   |   -      -
    answers    -1.0   -1.0  -1.0  |  0.5    0.5
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Float32, Shaped


def worst_of_class(
    logits: Float[Array, "b x y z c"],
    targets: Shaped[Array, "b x y z c"],
    valid: Bool[Array, "b x y z c"],
    window: int,
) -> Float32[Array, "b x y z c"]:
    """Each logit's worst neighbour of its own class and channel, itself among them.

    Its gradient goes to that neighbour; among equal ones it is divided.

    Args:
      logits: of any float type; taken to float32.
      targets: more than a half = positive.
      valid: edges that are known; the logits of others stay as they are.
      window: voxels along each axis, odd; 1 changes nothing.
    """
    x = logits.astype(jnp.float32)
    if window == 1:
        return x
    positive = targets.astype(jnp.float32) > 0.5
    low = _pooled(jnp.where(valid & positive, x, jnp.inf), window, jnp.minimum, jnp.inf)
    high = _pooled(
        jnp.where(valid & ~positive, x, -jnp.inf), window, jnp.maximum, -jnp.inf
    )
    return jnp.where(valid, jnp.where(positive, low, high), x)


def _pooled(
    x: Array, window: int, pick: Callable[[Array, Array], Array], fill: float
) -> Array:
    """Over a cube around each voxel, axis by axis.

    By shifted arrays: forward and back in three quarters of the time of `reduce_window`
    (64^3 edges of six channels, window 3, two CPU cores).
    """
    reach = window // 2
    for axis in (1, 2, 3):
        around = [(0, 0)] * x.ndim
        around[axis] = (reach, reach)
        padded = jnp.pad(x, around, constant_values=fill)
        length = x.shape[axis]
        for shift in range(window):
            if shift != reach:
                x = pick(x, lax.slice_in_dim(padded, shift, shift + length, axis=axis))
    return x
