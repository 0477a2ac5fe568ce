"""Affine resampling against MONAI 1.6.1's `Affine`, which `RandAffine` shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.data import affine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ANGLES, SCALES = (0.7, -1.9, 2.4), (0.85, 1.1, 1.2)
SHEARS = (0.3, -0.2, 0.45, 0.1, -0.4, 0.25)


@pytest.fixture
def transforms():
    pytest.importorskip("torch")
    return pytest.importorskip("monai.transforms")


def ours(image, labels, shears, shear):
    matrix = affine.matrix(
        *(jnp.array(values, jnp.float32) for values in (ANGLES, SCALES, shears)), shear
    )
    seen, moved = jax.jit(affine.resample)(image, labels, matrix)
    return np.asarray(matrix), np.asarray(seen), np.asarray(moved)


def theirs(transforms, image, labels, **parameters):
    """Channels first, and labels through float, as MONAI has it."""
    out = []
    for array, mode in (
        (np.moveaxis(image, -1, 0), "bilinear"),
        (labels[None], "nearest"),
    ):
        warp = transforms.Affine(
            mode=mode, padding_mode="reflection", image_only=True, **parameters
        )
        out.append(np.asarray(warp(array.astype(np.float32))))
    return np.moveaxis(out[0], 0, -1), out[1][0]


def check(transforms, shape, shears, shear, **parameters):
    draw = np.random.default_rng(0)
    image = draw.random((*shape, 2), np.float32)
    labels = draw.integers(0, 1000, shape, np.int32)
    matrix, seen, moved = ours(image, labels, shears, shear)
    if not parameters:
        parameters = {"affine": np.block([[matrix, np.zeros((3, 1))], [0, 0, 0, 1]])}
    want, want_labels = theirs(transforms, image, labels, **parameters)
    # Coordinates are float32 and their voxels' values differ by up to 1.
    np.testing.assert_allclose(seen, want, atol=2e-4)
    # Halfway between two voxels, rounding of the last bit decides.
    assert (moved != want_labels).mean() < 1e-3


@pytest.mark.parametrize("shape", [(16, 16, 16), (11, 14, 9)])
@pytest.mark.parametrize("count", [3, 6])
def test_composed_shears_are_those_of_monai(transforms, shape, count):
    check(
        transforms,
        shape,
        SHEARS[:count],
        "composed",
        rotate_params=ANGLES,
        shear_params=SHEARS[:count],
        scale_params=SCALES,
    )


@pytest.mark.parametrize("shape", [(16, 16, 16), (11, 14, 9)])
def test_any_matrix_resamples_as_in_monai(transforms, shape):
    check(transforms, shape, SHEARS, "offdiag")
