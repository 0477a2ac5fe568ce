"""Distances against a search over all voxels, and weights by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.data.affinities import affinity_targets
from nisbjax.data.calibre import calibre_weights, distance_to_others

pytestmark = pytest.mark.usefixtures("strict_promotion")
distance = jax.jit(distance_to_others, static_argnames="reach")


@given(st.integers(0, 2**32 - 1))
def test_equals_a_search_over_all_voxels(seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(-1, 3, (2, 2, 3)).repeat(3, 0).repeat(2, 1).repeat(2, 2)
    got = np.asarray(distance(jnp.asarray(labels[None], jnp.int32), reach=3)[0])
    voxels = list(itertools.product(*map(range, labels.shape)))
    for v in voxels:
        others = [
            np.linalg.norm(np.subtract(u, v)) for u in voxels if labels[u] != labels[v]
        ]
        nearest = min(others, default=np.inf)
        if nearest <= 3:
            np.testing.assert_allclose(got[v], nearest, rtol=1e-6)
        else:
            assert got[v] > 3


def test_is_the_distance_to_background_where_objects_stand_apart():
    labels = np.zeros((12, 9, 5), np.int32)
    labels[1:6, 1:8, 1:4], labels[8:9] = 1, 2
    want = scipy.ndimage.distance_transform_edt(labels > 0)
    got = np.asarray(distance(jnp.asarray(labels[None]), reach=8)[0])
    np.testing.assert_allclose(got[labels > 0], want[labels > 0], rtol=1e-6)


def test_only_true_edges_of_thin_objects_weigh_more():
    # z:               0  1  2  3  4  5  6
    labels = jnp.array([1, 1, 1, 1, 1, 0, 2]).reshape(1, 1, 1, 7)
    targets, _ = affinity_targets(labels, ((0, 0, 1),))
    weights = jax.jit(calibre_weights, static_argnames=("largest", "radius"))(
        labels, targets, largest=4.0, radius=4.0
    )
    # Distances to voxel 5: 5 4 3 2 1; w = 1 + 3 (4 - r) / 4 on edges 0-1 ... 3-4.
    want = [1, 1, 1.75, 2.5, 1, 1, 1]
    np.testing.assert_allclose(weights.ravel(), want)
