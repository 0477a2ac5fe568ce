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
        squared = _across(labels, squared, reach, axis)
    return jnp.sqrt(squared)


def _across(labels: Array, squared: Array, reach: int, axis: int) -> Array:
    size = labels.shape[axis]
    reach = min(reach, size - 1)
    padding = [(0, 0)] * labels.ndim
    padding[axis] = (reach, reach)
    other_labels = jnp.pad(labels, padding)
    other_squared = jnp.pad(squared, padding, constant_values=jnp.inf)
    place = lax.broadcasted_iota(jnp.int32, labels.shape, axis)

    # A loop, since two slices for each step would take seconds to compile.
    def look(shift: Array, best: Array) -> Array:
        there = place + shift - reach
        label = lax.dynamic_slice_in_dim(other_labels, shift, size, axis)
        onward = lax.dynamic_slice_in_dim(other_squared, shift, size, axis)
        steps = ((shift - reach) * (shift - reach)).astype(jnp.float32)
        found = jnp.where(label != labels, 0.0, onward) + steps
        inside = (there >= 0) & (there < size)
        return jnp.where(inside, jnp.minimum(best, found), best)

    return lax.fori_loop(0, 2 * reach + 1, look, squared)
