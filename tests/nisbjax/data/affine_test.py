"""Affine resampling against scipy, and the matrix against MONAI's by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.data import affine

pytestmark = pytest.mark.usefixtures("strict_promotion")
resampled = jax.jit(affine.resample)
matrix_of = jax.jit(affine.matrix, static_argnames="shear")


def f32(values):
    return jnp.asarray(values, jnp.float32)


def fold(n, size):
    """Reflection of a whole coordinate about -0.5 and size - 0.5, step by step."""
    while not 0 <= n < size:
        n = -1 - n if n < 0 else 2 * size - 1 - n
    return n


def test_identity_leaves_every_voxel():
    draw = np.random.default_rng(0)
    image = f32(draw.random((4, 5, 3, 2)))
    labels = draw.integers(-1, 2**31 - 1, (4, 5, 3), np.int32)
    seen, moved = resampled(image, labels, f32(np.eye(3)))
    np.testing.assert_allclose(seen, image, atol=1e-6)
    np.testing.assert_array_equal(moved, labels)


@given(st.integers(0, 2**32 - 1))
def test_equals_scipy(seed):
    draw = np.random.default_rng(seed)
    image = draw.random((6, 7, 8, 2), np.float32)
    labels = draw.integers(-1, 2**31 - 1, (6, 7, 8), np.int32)
    matrix = matrix_of(
        f32(draw.uniform(-np.pi, np.pi, 3)),
        f32(draw.uniform(0.8, 1.2, 3)),
        f32(draw.uniform(-0.5, 0.5, 6)),
    )
    seen, moved = resampled(image, labels, matrix)
    centre = (np.array(labels.shape) - 1) / 2
    grid = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"))
    source = np.einsum(
        "ij,j...->i...",
        np.asarray(matrix, np.float64),
        grid - centre.reshape(3, 1, 1, 1),
    ) + centre.reshape(3, 1, 1, 1)
    for channel in range(2):
        # scipy's "reflect" is the half-sample reflection of the reference.
        want = scipy.ndimage.map_coordinates(
            image[..., channel], source, order=1, mode="reflect"
        )
        np.testing.assert_allclose(seen[..., channel], want, atol=1e-4)
    rounded = np.round(source).astype(int)
    sure = (np.abs(np.abs(source - rounded) - 0.5) > 1e-3).all(0)  # no ties
    for v in np.argwhere(sure)[::5]:
        u = [fold(n, s) for n, s in zip(rounded[:, *v], labels.shape, strict=True)]
        assert moved[*v] == labels[*u]


def test_reflection():
    # size 3: | 0 1 2 | 2 1 0 | 0 1 2 ...; centres of voxels, and halfway between two.
    position = f32([-1, -0.5, 0, 0.5, 2, 2.5, 3, 3.5, 5, 6, -4])
    want = [0, 0, 0, 0.5, 2, 2, 2, 1.5, 0, 0, 2]
    np.testing.assert_allclose(affine.reflect(position, 3), want, atol=1e-6)


def test_a_single_voxel_is_seen_everywhere():
    seen, moved = resampled(
        f32(np.full((1, 1, 1, 1), 7)), np.full((1, 1, 1), 3, np.int32), f32(np.eye(3))
    )
    assert (float(seen[0, 0, 0, 0]), int(moved[0, 0, 0])) == (7.0, 3)


def test_a_quarter_turn_about_x_takes_y_to_z():
    matrix = matrix_of(f32([np.pi / 2, 0, 0]), f32([1, 1, 1]), f32([0, 0, 0]))
    want = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    np.testing.assert_allclose(matrix, want, atol=1e-6)
    # About y: (0, 2) has +sin, as MONAI's create_rotate.
    matrix = matrix_of(f32([0, np.pi / 2, 0]), f32([1, 1, 1]), f32([0, 0, 0]))
    np.testing.assert_allclose(matrix, [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], atol=1e-6)
    matrix = matrix_of(f32([0, 0, np.pi / 2]), f32([1, 1, 1]), f32([0, 0, 0]))
    np.testing.assert_allclose(matrix, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)


def test_shears_off_the_diagonal():
    still, ones = f32([0, 0, 0]), f32([1, 1, 1])
    six = matrix_of(still, ones, f32([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    np.testing.assert_allclose(six, [[1, 0.1, 0.2], [0.3, 1, 0.4], [0.5, 0.6, 1]])
    three = matrix_of(still, ones, f32([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(three, [[1, 0.1, 0.2], [0.3, 1, 0], [0, 0, 1]])


def test_composed_shears_keep_the_volume():
    shears = f32([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    matrix = matrix_of(f32([0, 0, 0]), f32([1, 1, 1]), shears, "composed")
    np.testing.assert_allclose(np.linalg.det(matrix), 1, atol=1e-6)
    # The first applies first: rows x, then y, then z, multiplied from the left.
    x = np.array([[1, 0.1, 0.2], [0, 1, 0], [0, 0, 1]])
    y = np.array([[1, 0, 0], [0.3, 1, 0.4], [0, 0, 1]])
    z = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.6, 1]])
    np.testing.assert_allclose(matrix, z @ y @ x, atol=1e-6)


@pytest.mark.parametrize("shear", affine.SHEARS)
def test_matrices_are_multiplied_in_float32_on_a_gpu(shear):
    arguments = (jax.ShapeDtypeStruct((n,), jnp.float32) for n in (3, 3, 6))
    traced = matrix_of.trace(*arguments, shear=shear)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = text.count("stablehlo.dot_general")
    assert products == text.count("precision = [HIGHEST, HIGHEST]") >= 4
