"""BANIS's augmentation of one crop, inside the jitted step, with a key per sample.

The operations are those of BANIS `data.py` and of PyTC's profile `aug_banis`, whose order
differs (PyTC turns the affine before intensity and noise, BANIS after). The affine follows
MONAI's `RandAffine`, with either of its two readings of shear. Unlike both, every draw is
a function of (seed, step, sample), so that workers, devices and restarts change nothing;
labels stay integers throughout, and images of any number of channels move with them.

Axis permutation, quarter turns and flips compose to one signed permutation matrix, which
becomes one gather with traced strides: no copies per operation, nothing to switch over.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float32, Int, Int32, Key

from nisbjax.data import affine
from nisbjax.errors import InputError
from nisbjax.typing import Triple

PROFILES = ("aug_banis", "none")
ORDERS = ("pytc", "banis")
_PROBABILITIES = ("permute", "rotate90", "flip", "drop", "drop_slice", "shift")
_PROBABILITIES += ("shift_slice", "affine", "intensity", "noise")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges of each operation; the values are those of both systems.

    Attributes:
      profile: `aug_banis`, or `none` to leave crops as they are.
      order: `pytc` (affine before intensity and noise) or `banis` (affine last).
      permute, rotate90, flip: probability of a random axis permutation, of a random
        quarter-turn count in each of three planes, of a flip of each axis.
      drop, drop_slice: probability that a crop loses slices (set to 0) of one random
        axis, and of each slice then.
      shift, shift_slice, shift_voxels: likewise for slices rolled along both in-plane
        axes by up to so many voxels.
      affine: probability of rotation, scaling and shear about the crop's centre.
      rotation: largest angle about each axis [rad].
      scale: largest relative change of each axis.
      shear: `offdiag` (coefficients written into the matrix: MONAI up to 1.5, the
        published numbers) or `composed` (product of elementary shears: MONAI 1.6.1).
      shear_range: largest coefficient.
      shear_coefficients: 3 (PyTC) or 6 (BANIS).
      intensity: probability of image * U(1 -+ intensity_scale) + U(-+ intensity_shift).
      noise: probability of Gaussian noise, its standard deviation U(0, noise_std).
    """

    profile: str = "aug_banis"
    order: str = "pytc"
    permute: float = 1.0
    rotate90: float = 1.0
    flip: float = 0.5
    drop: float = 0.5
    drop_slice: float = 0.05
    shift: float = 0.5
    shift_slice: float = 0.05
    shift_voxels: int = 10
    affine: float = 0.5
    rotation: float = float(np.pi)
    scale: float = 0.2
    shear: str = "offdiag"
    shear_range: float = 0.5
    shear_coefficients: int = 3
    intensity: float = 0.5
    intensity_scale: float = 0.1
    intensity_shift: float = 0.1
    noise: float = 0.5
    noise_std: float = 0.5

    def __post_init__(self):
        for name, choices in (
            ("profile", PROFILES),
            ("order", ORDERS),
            ("shear", affine.SHEARS),
            ("shear_coefficients", (3, 6)),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"augment.{name} is {getattr(self, name)!r}; wanted one of "
                    f"{', '.join(map(str, choices))}"
                )
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"augment.{name} is {getattr(self, name)}; wanted a probability, "
                    "0 to 1"
                )


Image = Float32[Array, "x y z c"]
Labels = Int32[Array, "x y z"]


def augment(
    key: Key[Array, ""], image: Image, labels: Labels, options: Augmentation
) -> tuple[Image, Labels]:
    """One random view of a crop.

    Args:
      key: of this sample.
      image: about [0, 1]; not clipped afterwards.
      labels: of the same voxels.
      options: which operations, how often, how strong.

    Returns:
      Image and labels of the same shape. On a crop that is not a cube, permutations and
      quarter turns only exchange axes of equal length.
    """
    if options.profile == "none":
        return image, labels
    turn, drop, shift, warp, intensity, noise = random.split(key, 6)
    if options.permute or options.rotate90 or options.flip:
        image, labels = _turn(turn, image, labels, options)
    if options.drop:
        image = _drop_slices(drop, image, options)
    if options.shift:
        image = _shift_slices(shift, image, options)
    if options.affine and options.order == "pytc":
        image, labels = _warp(warp, image, labels, options)
    if options.intensity:
        image = _intensity(intensity, image, options)
    if options.noise:
        image = _noise(noise, image, options)
    if options.affine and options.order == "banis":
        image, labels = _warp(warp, image, labels, options)
    return image, labels


def sample_keys(
    seed: int | Array, step: int | Array, samples: Int[Array, " b"]
) -> Array:
    """Keys for the samples of one step, by their index in the global batch."""
    key = random.fold_in(random.key(seed), step)
    return jax.vmap(lambda sample: random.fold_in(key, sample))(samples)


def _turn(key: Array, image: Array, labels: Array, options: Augmentation):
    x, y, z = labels.shape
    matrix = signed_permutation(key, (x, y, z), options)
    strides = jnp.array([y * z, z, 1], jnp.int32)
    # A negative row counts down from the last voxel of its source axis.
    last = jnp.where(matrix.sum(1) < 0, jnp.array((x, y, z), jnp.int32) - 1, 0)
    step = strides @ matrix
    index = (strides * last).sum()
    for axis in range(3):
        index = index + step[axis] * lax.broadcasted_iota(jnp.int32, (x, y, z), axis)
    return _take(image, index), _take(labels, index)


def signed_permutation(
    key: Array, shape: Triple, options: Augmentation
) -> Int32[Array, "3 3"]:
    """Source voxel = matrix @ voxel (up to the origin): permutation, turns, then flips."""
    draw = random.uniform(key, (11,))
    orders = [
        order
        for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        if all(shape[a] == shape[b] for a, b in enumerate(order))
    ]
    permutations = np.eye(3, dtype=np.int32)[np.array(orders)]
    matrix = _one_of(permutations, draw[0], draw[1] < options.permute)
    for plane, (a, b) in enumerate(((1, 2), (0, 2), (0, 1))):
        quarter = np.eye(3, dtype=np.int32)
        quarter[[a, b]] = 0
        quarter[a, b], quarter[b, a] = 1, -1  # numpy.rot90 from a towards b
        turns = np.stack([np.linalg.matrix_power(quarter, k) for k in range(4)])
        if shape[a] != shape[b]:
            turns = turns[::2]
        happens = draw[3 + 2 * plane] < options.rotate90
        matrix = matrix @ _one_of(turns, draw[2 + 2 * plane], happens)
    signs = jnp.where(draw[8:11] < options.flip, -1, 1)
    return matrix * signs[None, :]


def _drop_slices(key: Array, image: Array, options: Augmentation) -> Array:
    scalars, slices = random.split(key)
    draw = random.uniform(scalars, (2,))
    axis = jnp.where(draw[0] < options.drop, _integer(draw[1], 3), 3)
    dropped = random.uniform(slices, (3, max(image.shape))) < options.drop_slice
    kept = jnp.ones((1, 1, 1, 1), bool)
    for a in range(3):
        here = _along(dropped[a, : image.shape[a]], a) & (axis == a)
        kept = kept & ~here[..., None]
    return jnp.where(kept, image, jnp.zeros((), image.dtype))


def _shift_slices(key: Array, image: Array, options: Augmentation) -> Array:
    scalars, slices = random.split(key)
    draw = random.uniform(scalars, (2,))
    size = image.shape[:3]

    def roll(image: Array) -> Array:
        axis = _integer(draw[1], 3)
        # Of every slice: whether it moves, and how far along the two other axes.
        table = random.uniform(slices, (3, 3, max(size)))
        reach = options.shift_voxels
        moved = (table[:1] < options.shift_slice) & (jnp.arange(3)[:, None] == axis)[
            None
        ]
        amounts = jnp.where(moved, _integer(table[1:], 2 * reach + 1) - reach, 0)
        index = jnp.zeros((), jnp.int32)
        for a in range(3):
            source = lax.broadcasted_iota(jnp.int32, size, a)
            for b in {0, 1, 2} - {a}:
                which = 0 if a == min({0, 1, 2} - {b}) else 1
                along = _along(amounts[which, b, : size[b]], b)
                source = source - jnp.broadcast_to(along, size)
            turns = (
                -(-reach // size[a]) * size[a]
            )  # keeps the remainder's sign positive
            index = index * size[a] + lax.rem(source + turns, jnp.int32(size[a]))
        return _take(image, index)

    return lax.cond(draw[0] < options.shift, roll, lambda image: image, image)


def _warp(key: Array, image: Array, labels: Array, options: Augmentation):
    draw = random.uniform(key, (7 + options.shear_coefficients,))

    def resample(image: Array, labels: Array):
        signed = 2.0 * draw[1:] - 1.0
        matrix = affine.matrix(
            options.rotation * signed[:3],
            1.0 + options.scale * signed[3:6],
            options.shear_range * signed[6:],
            options.shear,
        )
        return affine.resample(image, labels, matrix)

    return lax.cond(
        draw[0] < options.affine, resample, lambda *same: same, image, labels
    )


def _intensity(key: Array, image: Array, options: Augmentation) -> Array:
    draw = random.uniform(key, (3,))
    happens = draw[0] < options.intensity
    scale = 1.0 + options.intensity_scale * (2.0 * draw[1] - 1.0)
    shift = options.intensity_shift * (2.0 * draw[2] - 1.0)
    return image * jnp.where(happens, scale, 1.0) + jnp.where(happens, shift, 0.0)


def _noise(key: Array, image: Array, options: Augmentation) -> Array:
    scalars, voxels = random.split(key)
    draw = random.uniform(scalars, (2,))

    def add(image: Array) -> Array:
        std = options.noise_std * draw[1]
        return image + std * random.normal(voxels, image.shape)

    return lax.cond(draw[0] < options.noise, add, lambda image: image, image)


def _integer(draw: Array, count: int) -> Int32[Array, "..."]:
    """0 ... count - 1 from uniform draws: few large draws compile faster than many."""
    return jnp.minimum((draw * count).astype(jnp.int32), count - 1)


def _one_of(choices: np.ndarray, draw: Array, happens: Array) -> Array:
    """One of the stacked choices, or the first."""
    return jnp.asarray(choices)[jnp.where(happens, _integer(draw, len(choices)), 0)]


def _along(values: Array, axis: int) -> Array:
    """A vector laid along one of three axes."""
    shape = [1, 1, 1]
    shape[axis] = values.shape[0]
    return values.reshape(shape)


def _take(array: Array, index: Int32[Array, "x y z"]) -> Array:
    """Voxels by their position in memory; of every channel, where there are channels."""
    flat = array.reshape(index.size, *array.shape[3:])
    return flat.at[index].get(mode="promise_in_bounds")
