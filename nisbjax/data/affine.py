"""Affine resampling of a crop and its labels, on device.

Reimplements MONAI `RandAffine` with `grid_sample` (align_corners False) as BANIS and PyTC
use it: output voxels, counted from the crop's centre, are multiplied by rotation x shear x
scale; the image is read trilinearly, labels at the nearest voxel (half to even), both
reflected about the crop's faces. Labels are gathered as integers: MONAI takes them through
float32, which merges ids beyond 2^24.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float32, Int32

SHEARS = ("offdiag", "composed")
# MONAI's order of the coefficients; three of them fill the first three places.
_PLACES = ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))


# On a GPU JAX would multiply in TF32, and put a crop's corner a thirtieth voxel elsewhere.
@jax.default_matmul_precision("float32")
def matrix(
    angles: Float32[Array, "3"],
    scales: Float32[Array, "3"],
    shears: Float32[Array, " s"],
    shear: str = "offdiag",
) -> Float32[Array, "3 3"]:
    """Rotation x shear x scale.

    Args:
      angles: about x, y and z [rad].
      scales: of each axis; more than 1 shows more of the crop.
      shears: 3 or 6 coefficients.
      shear: `offdiag` writes them into an identity at (0,1) (0,2) (1,0) (1,2) (2,0) (2,1);
        `composed` applies them as elementary shears in that order, so that the
        determinant is 1.
    """
    rotation = _rotation(angles[0], 1, 2) @ _rotation(angles[1], 2, 0)
    rotation = rotation @ _rotation(angles[2], 0, 1)
    identity = jnp.eye(3)
    sheared = identity
    for coefficient, place in zip(shears, _PLACES, strict=False):
        if shear == "offdiag":
            sheared = sheared.at[place].set(coefficient)
        else:
            sheared = identity.at[place].set(coefficient) @ sheared
    return rotation @ sheared @ jnp.diag(scales)


def _rotation(angle: Array, a: int, b: int) -> Array:
    """Turns axis a towards axis b."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.eye(3).at[a, a].set(cosine).at[b, b].set(cosine)
    return turn.at[b, a].set(sine).at[a, b].set(-sine)


def resample(
    image: Float32[Array, "x y z c"],
    labels: Int32[Array, "x y z"],
    matrix: Float32[Array, "3 3"],
) -> tuple[Float32[Array, "x y z c"], Int32[Array, "x y z"]]:
    """The crop seen through `matrix`, about its centre.

    Args:
      image: any number of channels.
      labels: of the same voxels.
      matrix: takes an output voxel, counted from the centre, to the voxel that it shows.

    Returns:
      Image (trilinear) and labels (nearest), of the same shape.
    """
    x, y, z = labels.shape
    shape = (x, y, z)
    strides = (shape[1] * shape[2], shape[2], 1)
    source = _source(matrix, shape)
    nearest = jnp.zeros(shape, jnp.int32)
    base = jnp.zeros(shape, jnp.int32)
    fractions, steps = [], []
    for position, size, stride in zip(source, shape, strides, strict=True):
        nearest = nearest + stride * jnp.round(position).astype(jnp.int32)
        # The last voxel is read as the upper one of its pair, so that both exist.
        low = jnp.minimum(jnp.floor(position), max(size - 2, 0))
        fractions.append((position - low)[..., None])
        base = base + stride * low.astype(jnp.int32)
        steps.append(stride if size > 1 else 0)
    flat = image.reshape(labels.size, image.shape[-1])

    def corner(step: int) -> Array:
        return flat.at[base + step].get(mode="promise_in_bounds")

    def between(low: Array, high: Array, axis: int) -> Array:
        return low + (high - low) * fractions[axis]

    def edge(step: int) -> Array:
        return between(corner(step), corner(step + steps[2]), 2)

    def face(step: int) -> Array:
        return between(edge(step), edge(step + steps[1]), 1)

    seen = between(face(0), face(steps[0]), 0)
    return seen, labels.reshape(-1).at[nearest].get(mode="promise_in_bounds")


def _source(matrix: Array, shape: tuple[int, int, int]) -> list[Array]:
    """Coordinates x, y, z of the voxel seen at each output voxel, inside the crop."""
    centre = [(size - 1) / 2 for size in shape]
    out = [
        lax.broadcasted_iota(jnp.float32, shape, axis) - centre[axis]
        for axis in range(3)
    ]
    return [
        reflect(
            matrix[a, 0] * out[0]
            + matrix[a, 1] * out[1]
            + matrix[a, 2] * out[2]
            + centre[a],
            shape[a],
        )
        for a in range(3)
    ]


def reflect(position: Array, size: int) -> Array:
    """Folds coordinates into [0, size - 1] by reflection about -0.5 and size - 0.5.

    A triangle wave of period 2 size; what falls within half a voxel outside the outermost
    centres is clamped to them, as `grid_sample` does.
    """
    turns = (position + 0.5) / (2.0 * size)
    folded = jnp.abs(turns - jnp.round(turns)) * (2.0 * size) - 0.5
    return jnp.clip(folded, 0.0, size - 1.0)
