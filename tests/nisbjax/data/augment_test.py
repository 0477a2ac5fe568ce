"""Each operation of aug_banis: what it may do, how often, and that labels go along."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.data import augment as module
from nisbjax.data.augment import Augmentation, augment, sample_keys
from nisbjax.errors import InputError

pytestmark = pytest.mark.usefixtures("strict_promotion")

OFF = Augmentation(
    permute=0.0,
    rotate90=0.0,
    flip=0.0,
    drop=0.0,
    shift=0.0,
    affine=0.0,
    intensity=0.0,
    noise=0.0,
)
SHAPE = (6, 6, 6)
KEYS = 200


@functools.partial(jax.jit, static_argnums=3)
def many(keys, image, labels, options):
    return jax.vmap(lambda key: augment(key, image, labels, options))(keys)


def views(image, labels, keys=KEYS, **changes):
    """Many draws of one crop with only the named operations on."""
    options = dataclasses.replace(OFF, **changes)
    drawn = sample_keys(0, 0, jnp.arange(keys))
    seen = many(drawn, jnp.asarray(image), jnp.asarray(labels), options)
    return [np.asarray(a) for a in seen]


def numbered(shape=SHAPE, channels=1):
    """Every voxel has its own label; the channels are its multiples."""
    labels = np.arange(1, np.prod(shape) + 1, dtype=np.int32).reshape(shape)
    multiples = np.arange(1, channels + 1, dtype=np.float32)
    return labels[..., None].astype(np.float32) * multiples, labels


def close(share, wanted, trials):
    """Within four standard deviations of a binomial share."""
    return abs(share - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / trials)


def test_all_off_changes_nothing():
    image, labels = numbered()
    for options in ({}, {"profile": "none"}):
        seen, moved = views(image, labels, keys=2, **options)
        np.testing.assert_array_equal(seen[1], image)
        np.testing.assert_array_equal(moved[1], labels)


@pytest.mark.parametrize(
    "changes, size",
    [({"permute": 1.0}, 6), ({"rotate90": 1.0}, 24), ({"flip": 0.5}, 8)],
)
def test_turns_are_the_group_they_should_be(changes, size):
    image, labels = numbered((3, 3, 3), channels=2)
    seen, moved = views(image, labels, **changes)
    # Every channel goes where its label goes, by a permutation of axes and flips.
    np.testing.assert_array_equal(seen[..., 0], moved)
    np.testing.assert_array_equal(seen[..., 1], 2 * moved)
    kinds, counts = np.unique(moved.reshape(KEYS, -1), axis=0, return_counts=True)
    allowed = {
        tuple(np.flip(labels.transpose(order), axes).ravel())
        for order in itertools.permutations(range(3))
        for n in range(4)
        for axes in itertools.combinations(range(3), n)
    }
    assert {tuple(kind) for kind in kinds} <= allowed
    assert len(kinds) == size
    if size != 24:  # the turns of three planes in sequence are not uniform
        assert all(close(count / KEYS, 1 / size, KEYS) for count in counts)


def test_all_three_together_are_uniform_over_48():
    image, labels = numbered((2, 2, 2))
    _, moved = views(image, labels, keys=1000, permute=1.0, rotate90=1.0, flip=0.5)
    _, counts = np.unique(moved.reshape(1000, -1), axis=0, return_counts=True)
    assert len(counts) == 48
    # chi-squared with 47 degrees of freedom: mean 47, sd sqrt(94) = 9.7.
    expected = 1000 / 48
    assert ((counts - expected) ** 2 / expected).sum() < 47 + 4 * 9.7


def test_a_crop_that_is_no_cube_keeps_its_shape():
    image, labels = numbered((4, 4, 2))
    _, moved = views(image, labels, permute=1.0, rotate90=1.0, flip=0.5)
    kinds = np.unique(moved.reshape(KEYS, -1), axis=0)
    # x and y may change places (2), and each axis may be reversed (8).
    assert len(kinds) == 16
    for view in moved[:20]:  # slices along z stay slices
        slices = {frozenset(view[..., z].ravel()) for z in range(2)}
        assert slices == {frozenset(labels[..., z].ravel()) for z in range(2)}


def test_dropped_slices_are_whole_of_one_axis_and_of_the_image_alone():
    image, labels = numbered()
    seen, moved = views(image, labels, drop=0.5, drop_slice=0.3)
    np.testing.assert_array_equal(moved, np.broadcast_to(labels, moved.shape))
    axes = []
    for view in seen[..., 0]:
        zero = view == 0
        assert np.array_equal(view[~zero], labels[~zero])
        if not zero.any():
            continue
        whole = [np.all(zero, tuple({0, 1, 2} - {a})) for a in range(3)]
        (axis,) = (a for a in range(3) if whole[a].any())
        shape = [1, 1, 1]
        shape[axis] = 6
        np.testing.assert_array_equal(
            zero, np.broadcast_to(whole[axis].reshape(shape), SHAPE)
        )
        axes.append(axis)
    # 0.5 (1 - 0.7^6): a crop is chosen and loses at least one slice.
    assert close(len(axes) / KEYS, 0.5 * (1 - 0.7**6), KEYS)
    assert min(np.bincount(axes, minlength=3)) > 0.2 * len(axes)


def test_shifted_slices_roll_in_their_plane():
    image, labels = numbered()
    seen, moved = views(image, labels, shift=1.0, shift_slice=0.4, shift_voxels=2)
    np.testing.assert_array_equal(moved, np.broadcast_to(labels, moved.shape))
    rolls, counts = [], 0
    for view in seen[..., 0].astype(np.int32):
        # One axis across which every slice is a roll of itself.
        for axis in range(3):
            slices = zip(np.moveaxis(labels, axis, 0), np.moveaxis(view, axis, 0))
            found = [_roll(a, b) for a, b in slices]
            if all(f is not None for f in found):
                break
        else:
            raise AssertionError("slices of no axis are rolls of the original")
        rolls += [f for f in found if f != (0, 0)]
        counts += 1
    assert counts == KEYS
    # 0.4 of 6 slices, 24 of the 25 amounts are not (0, 0).
    assert close(len(rolls) / (6 * KEYS), 0.4 * 24 / 25, 6 * KEYS)
    assert {r[0] for r in rolls} == {r[1] for r in rolls} == {-2, -1, 0, 1, 2}


def _roll(original, moved):
    for a, b in itertools.product(range(-2, 3), repeat=2):
        if np.array_equal(np.roll(original, (a, b), (0, 1)), moved):
            return a, b
    return None


def test_intensity_and_noise_have_the_stated_spread():
    image, labels = np.full((*SHAPE, 1), 0.5, np.float32), numbered()[1]
    seen, _ = views(image, labels, intensity=0.5)
    flat = seen.reshape(KEYS, -1)
    assert np.ptp(flat, axis=1).max() == 0  # one scale and one shift for a crop
    changed = flat[:, 0] != 0.5
    assert close(changed.mean(), 0.5, KEYS)
    assert 0.5 * 0.9 - 0.1 <= flat.min() < 0.4 and 0.6 < flat.max() <= 0.5 * 1.1 + 0.1
    seen, _ = views(image, labels, noise=0.5)
    std = seen.reshape(KEYS, -1).std(axis=1)
    assert close((std > 0).mean(), 0.5, KEYS)
    # U(0, 0.5) has mean 0.25 and sd 0.144; of about 100 draws, 0.0144.
    assert abs(std[std > 0].mean() - 0.25) < 4 * 0.0144 + 0.01
    assert abs(seen.mean() - 0.5) < 0.01


def test_affine_moves_image_and_labels_alike():
    # Smooth in space, so that the nearest label's value is near the interpolated one.
    labels = np.add.outer(np.add.outer(np.arange(6), np.arange(6)), np.arange(6))
    labels = labels.astype(np.int32)
    image = np.stack([labels, 2 * labels], -1).astype(np.float32)
    seen, moved = views(image, labels, affine=0.5, shear_coefficients=6)
    changed = (moved != labels).any((1, 2, 3))
    assert close(changed.mean(), 0.5, KEYS)
    np.testing.assert_array_equal(seen[~changed, ..., 0], moved[~changed])
    # Three axes, each at most half a voxel away.
    assert np.abs(seen[..., 0] - moved).max() <= 1.5 + 1e-4
    np.testing.assert_allclose(seen[..., 1], 2 * seen[..., 0], rtol=1e-5)


@pytest.mark.parametrize("coefficients", [3, 6])
def test_affine_draws_are_uniform_in_their_ranges(monkeypatch, coefficients):
    """The draws themselves, written into the image in place of the resampled crop."""

    def draws(angles, scales, shears, shear):
        missing = jnp.full(6 - shears.size, -9, shears.dtype)
        return jnp.concatenate([angles, scales, shears, missing])

    def shown(image, labels, values):
        return jnp.zeros_like(image).ravel().at[:12].set(values).reshape(
            image.shape
        ), labels

    monkeypatch.setattr(module.affine, "matrix", draws)
    monkeypatch.setattr(module.affine, "resample", shown)
    many.clear_cache()
    image, labels = numbered()
    options = {"affine": 1.0, "shear_coefficients": coefficients}
    seen, _ = views(image, labels, keys=400, **options)
    many.clear_cache()
    values = seen.reshape(400, -1)[:, : 6 + coefficients]
    assert (seen.reshape(400, -1)[:, 6 + coefficients : 12] == -9).all()
    low = np.array([-np.pi] * 3 + [0.8] * 3 + [-0.5] * coefficients)
    high = np.array([np.pi] * 3 + [1.2] * 3 + [0.5] * coefficients)
    assert (values >= low - 1e-6).all() and (values <= high + 1e-6).all()
    units = (values - low) / (high - low)
    for (
        column
    ) in units.T:  # Kolmogorov and Smirnov: 1.95 / sqrt(n) at one in a thousand
        gap = np.sort(column) - (np.arange(400) + 0.5) / 400
        assert np.abs(gap).max() < 1.95 / 20
    # Independent of one another: correlations have sd 1 / sqrt(n).
    off = np.corrcoef(units.T)[~np.eye(6 + coefficients, dtype=bool)]
    assert np.abs(off).max() < 4 / 20


def test_a_shift_is_uniform_and_independent_along_both_axes():
    image, labels = numbered()
    seen, _ = views(image, labels, shift=1.0, shift_slice=1.0, shift_voxels=1)
    rolls = []
    for view in seen[..., 0].astype(np.int32):
        for axis in range(3):
            slices = zip(np.moveaxis(labels, axis, 0), np.moveaxis(view, axis, 0))
            found = [_roll(a, b) for a, b in slices]
            if all(f is not None for f in found):
                rolls += found
                break
    _, counts = np.unique(rolls, axis=0, return_counts=True)
    # 9 pairs of {-1, 0, 1}; chi-squared with 8 degrees of freedom: mean 8, sd 4.
    expected = 6 * KEYS / 9
    assert len(counts) == 9
    assert ((counts - expected) ** 2 / expected).sum() < 8 + 4 * 4


def test_orders_differ_in_what_the_affine_sees():
    # Noise alone on a flat image: after the affine it is white; before it, interpolation
    # averages neighbours and its spread shrinks.
    image, labels = np.zeros((*SHAPE, 1), np.float32), numbered()[1]
    spread = {}
    for order in ("pytc", "banis"):
        seen, _ = views(image, labels, affine=1.0, noise=1.0, order=order)
        spread[order] = seen.std()
    assert spread["banis"] < 0.8 * spread["pytc"]


def test_a_sample_depends_on_its_key_alone():
    image, labels = (jnp.asarray(a) for a in numbered())
    options = dataclasses.replace(OFF, noise=1.0)

    def noisy(seed, step, samples):
        keys = sample_keys(seed, step, jnp.array(samples))
        return np.asarray(many(keys, image, labels, options)[0])

    first = noisy(7, 3, [4, 5])
    np.testing.assert_array_equal(noisy(7, 3, [5, 6])[0], first[1])
    for other in (noisy(8, 3, [4, 5]), noisy(7, 4, [4, 5]), first[::-1]):
        assert (other != first).any((1, 2, 3, 4)).all()


def test_large_ids_survive():
    labels = np.full(SHAPE, 2**24 + 1, np.int32)
    labels[0] = -1
    _, moved = views(numbered()[0], labels, affine=0.5, shear_coefficients=6)
    assert set(np.unique(moved)) == {-1, 2**24 + 1}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"order": "monai"}, "augment.order is 'monai'; wanted one of pytc, banis"),
        ({"profile": "strong"}, "augment.profile is 'strong'; wanted one of aug_banis"),
        ({"shear": "yes"}, "augment.shear is 'yes'; wanted one of offdiag, composed"),
        ({"shear_coefficients": 4}, "shear_coefficients is 4; wanted one of 3, 6"),
        ({"flip": 1.5}, "augment.flip is 1.5; wanted a probability, 0 to 1"),
    ],
)
def test_input_errors(changes, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**changes)


def test_rot90_is_numpys():
    options = dataclasses.replace(OFF, rotate90=1.0)
    keys = jax.random.split(jax.random.key(1), 40)
    draw = jax.vmap(lambda k: module.signed_permutation(k, (3, 3, 3), options))
    labels = numbered((3, 3, 3))[1]
    turned = {
        tuple(
            np.rot90(np.rot90(np.rot90(labels, a, (1, 2)), b, (0, 2)), c, (0, 1)).flat
        )
        for a, b, c in itertools.product(range(4), repeat=3)
    }
    centred = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"))
    for matrix in np.asarray(draw(keys)):
        x, y, z = np.einsum("ij,jxyz->ixyz", matrix, centred) + 1
        assert tuple(labels[x, y, z].flat) in turned
