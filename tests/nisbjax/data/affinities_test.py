"""Affinity targets against hand-drawn volumes and a plain loop over edges."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.data.affinities import affinity_targets, target_context
from nisbjax.errors import InputError
from nisbjax.offsets import OFFSETS_6

jitted = jax.jit(affinity_targets, static_argnames=("offsets", "stored_at"))


def loop_over_edges(labels, offsets, stored_at):
    """BANIS's definition, one edge at a time."""
    shape = labels.shape
    targets = np.zeros((*shape, len(offsets)), bool)
    valid = np.zeros((*shape, len(offsets)), bool)
    for channel, offset in enumerate(offsets):
        for v in itertools.product(*map(range, shape)):
            u = tuple(a + b for a, b in zip(v, offset, strict=True))
            if not all(0 <= a < s for a, s in zip(u, shape, strict=True)):
                continue
            place = (*(v if stored_at == "source" else u), channel)
            targets[place] = labels[v] == labels[u] and labels[v] > 0
            valid[place] = labels[v] != -1 and labels[u] != -1
    return targets, valid


def targets_of(labels, offsets, stored_at="source"):
    batch = np.asarray(labels, np.int32)[None]
    return [np.asarray(a[0]) for a in jitted(batch, offsets, stored_at=stored_at)]


def test_a_row_of_voxels_drawn_by_hand():
    #  z      0  1  2  3   4  5
    row = [[[5, 5, 0, 0, -1, 7]]]
    targets, valid = targets_of(row, ((0, 0, 1),))
    # 5=5 | 5,0 | 0=0: background | to -1 | from -1 | leaves the crop
    assert targets.ravel().tolist() == [True, False, False, False, False, False]
    assert valid.ravel().tolist() == [True, True, True, False, False, False]


def test_destination_stored_edges_stand_one_offset_further():
    row = [[[5, 5, 0, 0, -1, 7]]]
    targets, valid = targets_of(row, ((0, 0, 1),), "destination")
    assert targets.ravel().tolist() == [False, True, False, False, False, False]
    assert valid.ravel().tolist() == [False, True, True, True, False, False]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["source", "destination"]),
)
def test_equals_a_loop_over_edges(seed, stored_at):
    draw = np.random.default_rng(seed)
    # Few ids, so that distant voxels are often equal; an offset beyond the crop, one that
    # goes backwards, and one that is oblique.
    labels = draw.integers(-1, 3, (5, 4, 6))
    offsets = ((1, 0, 0), (0, 0, 1), (0, -2, 0), (1, -1, 3), (0, 9, 0))
    wanted = loop_over_edges(labels, offsets, stored_at)
    for got, want in zip(targets_of(labels, offsets, stored_at), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_with_its_context_every_edge_of_the_patch_is_known():
    before, behind = target_context(OFFSETS_6)
    assert (before, behind) == ((0, 0, 0), (10, 10, 10))
    _, valid = targets_of(np.ones((12, 13, 14)), OFFSETS_6)
    assert valid[:2, :3, :4].all()  # 12 - 10, 13 - 10, 14 - 10
    assert not valid[2, :, :, 3].any()
    assert target_context(OFFSETS_6, stored_at="destination") == (behind, before)


def test_another_end_of_the_edge_is_refused():
    message = "edge_stored_at is 'middle'; wanted one of source, destination"
    with pytest.raises(InputError, match=message):
        target_context(OFFSETS_6, stored_at="middle")


def test_every_negative_label_is_unlabeled():
    # Edges of x: 5 5 | -2 -2 | 0: true, unknown, unknown, unknown.
    labels = jnp.array([5, 5, -2, -2, 0]).reshape(1, 5, 1, 1)
    targets, valid = affinity_targets(labels, [(1, 0, 0)])
    assert targets.ravel().tolist() == [True, False, False, False, False]
    assert valid.ravel().tolist() == [True, False, False, False, False]
