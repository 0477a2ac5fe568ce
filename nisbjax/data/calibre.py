"""Edge weights that favour thin neurites, for the loss.

On LICONN, predicted affinities on true edges fall with the local calibre of a process
while those across membranes do not, so a single threshold loses thin neurites; PyTC's
`thin_affinity_weight` raises the weight of true edges where the process is thin. There the
radius is the distance to background; here it is the distance to anything that is not the
same object, which is the same where objects stand apart, and also right where they touch.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float32, Int


def calibre_weights(
    labels: Int[Array, "b x y z"],
    targets: Bool[Array, "b x y z c"],
    *,
    largest: float,
    radius: float = 8.0,
) -> Float32[Array, "b x y z c"]:
    """1 + (largest - 1) (radius - r) / radius on true edges closer than `radius`, else 1.

    Args:
      labels: after erosion, as the targets were computed from.
      targets: affinities; an edge takes the r of the voxel at which it is stored.
      largest: weight at r = 0.
      radius: from which on the weight is 1 [voxels].
    """
    distance = distance_to_others(labels, reach=int(-(-radius // 1)))
    thin = jnp.clip((radius - distance) / radius, 0.0, 1.0)
    return jnp.where(targets, 1.0 + (largest - 1.0) * thin[..., None], 1.0)


def distance_to_others(
    labels: Int[Array, "b x y z"], *, reach: int
) -> Float32[Array, "b x y z"]:
    """Euclidean distance [voxels] to the nearest voxel of another label.

    Exact up to `reach`, beyond it only known to be more; infinite where nothing is near.
    What lies outside the array is not another label.

    Args:
      labels: background and unlabeled voxels are labels like any other.
      reach: in voxels; time grows with it.
    """
    squared = jnp.full(labels.shape, jnp.inf, jnp.float32)
    # Axis by axis: the nearest other voxel lies across s steps of this axis, or as near to
    # the voxel of the same label s steps away as the axes before have found.
    for axis in (3, 2, 1):
        size = labels.shape[axis]
        best = squared
        for step in range(1, min(reach, size - 1) + 1):
            low = lax.slice_in_dim(labels, 0, size - step, axis=axis)
            high = lax.slice_in_dim(labels, step, size, axis=axis)
            other = low != high
            here = lax.slice_in_dim(squared, 0, size - step, axis=axis)
            there = lax.slice_in_dim(squared, step, size, axis=axis)
            across = float(step * step)
            onward = jnp.where(other, across, there + across)
            back = jnp.where(other, across, here + across)
            best = jnp.minimum(best, _placed(onward, 0, step, axis))
            best = jnp.minimum(best, _placed(back, step, 0, axis))
        squared = best
    return jnp.sqrt(squared)


def _placed(values: Array, before: int, behind: int, axis: int) -> Array:
    padding = [(0, 0, 0)] * values.ndim
    padding[axis] = (before, behind, 0)
    return lax.pad(values, jnp.array(jnp.inf, values.dtype), padding)
