"""Flipped affinities turned back: by hand, and as an identity on true affinities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.infer.tta import mean_over_flips, turn_back
from nisbjax.offsets import OFFSETS_6

OFFSETS = (*OFFSETS_6[:3], (2, 0, 0), (0, -1, 0))
turned_back = jax.jit(functools.partial(turn_back, offsets=OFFSETS))


def affinities(labels, offsets):
    """1 where both ends are in the volume and have the same label, voxel by voxel."""
    found = np.zeros((len(offsets), *labels.shape), np.float32)
    for c, offset in enumerate(offsets):
        for v in np.ndindex(*labels.shape):
            u = tuple(np.add(v, offset))
            if min(u) >= 0 and all(np.less(u, labels.shape)):
                found[(c, *v)] = labels[v] == labels[u]
    return found


def test_a_flip_along_x_by_hand():
    # Labels 1 1 2 along x: the only edge is 0 -> 1. Flipped: 2 1 1, with the edge 1 -> 2
    # stored at 1. Un-flipped it stands at 2 - 1 = 1; turned back at 0, and the last voxel,
    # whose other end lies outside, is left out.
    flipped = jnp.array([0.0, 1.0, 0.0]).reshape(1, 1, 3, 1, 1)
    back, valid = turn_back(flipped, jnp.array([True, False, False]), ((1, 0, 0),))
    assert back[0, 0, :2, 0, 0].tolist() == [1.0, 0.0]
    assert valid[0, 0, :, 0, 0].tolist() == [True, True, False]


@given(st.integers(0, 7), st.integers(0, 99))
def test_true_affinities_of_any_flip_come_back(flags, seed):
    labels = np.random.default_rng(seed).integers(0, 3, (3, 5, 4))
    axes = [a for a in range(3) if flags >> a & 1]
    flipped = affinities(np.flip(labels, axes), OFFSETS)
    back, valid = turned_back(
        jnp.asarray(flipped[None]), jnp.array([a in axes for a in range(3)])
    )
    want = np.where(valid[0], affinities(labels, OFFSETS), 0)
    np.testing.assert_array_equal(np.where(valid[0], back[0], 0), want)


def test_a_network_that_knows_the_truth_is_not_changed():
    # "Image" = labels; its affinities to the next voxel are computed from it.
    labels = np.random.default_rng(0).integers(1, 3, (1, 4, 5, 3, 1)).astype(np.float32)

    def network(images):
        channels = []
        for axis in range(3):
            x = images[..., 0]
            equal = (x == jnp.roll(x, -1, 1 + axis)).astype(jnp.float32)
            last = jnp.arange(x.shape[1 + axis]) == x.shape[1 + axis] - 1
            last = jnp.expand_dims(last, [a for a in range(4) if a != 1 + axis])
            channels.append(jnp.where(last, 0.0, equal))
        return jnp.stack(channels, 1)

    labels = jnp.asarray(labels)
    averaged = mean_over_flips(network, OFFSETS_6[:3])(labels)
    np.testing.assert_array_equal(averaged, network(labels))


def test_an_uneven_network_is_averaged():
    # Answers x where it sees x = 0, else 0: of the flips along x, the voxel 0 sees itself
    # at 0 and at 2 (size 3). Channel z: no shift along x, so all eight flips are valid.
    def network(images):
        index = jnp.arange(3, dtype=jnp.float32).reshape(1, 1, 3, 1, 1)
        return jnp.broadcast_to(index, (1, 1, 3, 1, 2))

    averaged = mean_over_flips(network, ((0, 0, 1),))(jnp.zeros((1, 3, 1, 2, 1)))
    np.testing.assert_allclose(averaged[0, 0, :, 0, 0], [1.0, 1.0, 1.0])  # (0 + 2) / 2


def test_oblique_offsets_are_refused():
    with pytest.raises(InputError, match=r"one axis each; \(1, 1, 0\) is not"):
        mean_over_flips(lambda images: images, ((1, 0, 0), (1, 1, 0)))
