"""Contraction: for all biases in the ranges the components are those of the whole watershed."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nisbjax.decode import mutex_components
from nisbjax.decode.contraction import Biases, components, contract
from nisbjax.decode.edge_weights import FEW, held_values
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.segment_counts import without_small

OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 0, 0), (0, -2, 1), (0, 0, 5))


def whole(affinities, offsets, attract, repel, edges):
    """Components of two voxels or more, 1..N in C order of first voxels."""
    labels = mutex_components.mutex_components(
        affinities, offsets, attract=attract, repel=repel, edges=edges
    )
    without_small(labels, 2)
    return labels


def settled(contracted, attract, repel):
    """The same, of what was contracted."""
    clusters = contracted.clusters
    of = components(contracted[1:], int(clusters.max(initial=0)), attract, repel)
    labels = np.where(clusters > 0, of[clusters] + 1, 0)
    _, labels = np.unique(np.append(labels, 0), return_inverse=True)
    labels = labels[:-1].reshape(clusters.shape).astype(np.uint32)
    without_small(labels, 2)
    first = np.unique(labels, return_index=True)
    order = np.argsort(first[1][first[0] > 0])
    table = np.zeros(int(labels.max(initial=0)) + 1, np.uint32)
    table[first[0][first[0] > 0][order]] = np.arange(1, len(order) + 1)
    return table[labels]


logits = st.floats(-3, 3)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_components_of_any_biases_in_the_ranges_are_those_of_the_watershed(data, seed):
    rng = np.random.default_rng(seed)
    shape = data.draw(st.tuples(*[st.integers(1, 14)] * 3))
    # From few values (ties everywhere) to many; some NaN.
    values = rng.random(data.draw(st.sampled_from([2, 4, 12, 1000])))
    affinities = values[rng.integers(0, len(values), (6, *shape))].astype(np.float16)
    if data.draw(st.booleans()):
        affinities = np.float16(0.5) + (affinities - np.float16(0.5)) / 4
    if data.draw(st.booleans()):
        affinities[rng.random(affinities.shape) < 0.1] = np.nan
    if data.draw(st.booleans()):
        affinities = (np.nan_to_num(affinities) * 255).astype(np.uint8)
    ends = [sorted(data.draw(st.tuples(logits, logits))) for _ in range(2)]
    mask = rng.random(shape) < 0.8 if data.draw(st.booleans()) else None
    words = st.sampled_from(["both", "source"])
    edges = MaskedEdges(
        data.draw(st.sampled_from([0, 1])), mask, None, data.draw(words)
    )
    biases = Biases(*[(low, high) for low, high in ends])
    contracted = contract(affinities, OFFSETS, biases, edges)
    for _ in range(3):
        attract, repel = (
            low + data.draw(st.sampled_from([0, 0.3, 0.5, 1])) * (high - low)
            for low, high in ends
        )
        np.testing.assert_array_equal(
            settled(contracted, attract, repel),
            whole(affinities, OFFSETS, attract, repel, edges),
        )


def test_single_biases_leave_nothing_to_decide():
    affinities = np.random.default_rng(0).random((6, 9, 8, 7)).astype(np.float16)
    biases = Biases((0.2, 0.2), (0.8, 0.8))
    contracted = contract(affinities, OFFSETS, biases, MaskedEdges())
    assert len(contracted.shorts.ends) == 0
    assert contracted.clusters.max() < 9 * 8 * 7 / 2


def test_what_depends_on_the_biases_is_kept_once():
    """Logits .85 joins 0-1, m = -.4 lies between 0 and 2, .62 between 1 and 2: s decides.

    p = .7, .65 are logits .847 and .619; p = .4 is -.405: apart first where .619 - .405 =
    .214 < s.
    """
    affinities = np.zeros((4, 1, 1, 3), np.float16)
    affinities[2, 0, 0] = 0.7, 0.65, 0
    affinities[3, 0, 0] = 0.4, 1, 1
    offsets = (*OFFSETS[:3], (0, 0, 2))
    biases = Biases((0.0, 0.1), (0.1, 0.3))
    contracted = contract(affinities, offsets, biases, MaskedEdges())
    # 0.847 is above s - m for all s up to .4 + .405: certain.
    assert contracted.clusters.tolist() == [[[1, 1, 2]]]
    assert contracted.shorts.ends.tolist() == [1, 2]
    assert contracted.longs.ends.tolist() == [1, 2]
    assert settled(contracted, 0.0, 0.2).tolist() == [[[1, 1, 1]]]
    assert settled(contracted, 0.0, 0.22).tolist() == [[[1, 1, 0]]]


@pytest.mark.parametrize("dtype", FEW)
def test_no_two_logits_are_nearer_than_rounding_tells_apart(dtype):
    held = held_values(dtype)
    logit = np.unique(mutex_components.logits(held[(held >= 0) & (held <= 1)]))
    assert np.diff(logit).min() > 2 * mutex_components.STEP
