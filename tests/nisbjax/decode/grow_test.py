import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.grow import grow_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError


def grown(affinities, high, low, min_seed, mask=None):
    """Kruskal with sets, from the definition; source-stored edges."""
    shape = affinities.shape[1:]
    voxels = list(itertools.product(*map(range, shape)))
    edges = []
    for v, axis in itertools.product(voxels, range(3)):
        w = tuple(i + (a == axis) for a, i in enumerate(v))
        if w[axis] < shape[axis] and (mask is None or (mask[v] and mask[w])):
            edges.append((float(affinities[(axis, *v)]), v, w, axis))
    cluster = {v: {v} for v in voxels}

    def join(v, w):
        merged = cluster[v] | cluster[w]
        for u in merged:
            cluster[u] = merged

    for value, v, w, _ in edges:
        if value > high:
            join(v, w)
    foreground = {u for value, v, w, _ in edges if value > low for u in (v, w)}
    for v, axis in itertools.product(voxels, range(3)):
        leaves = v[axis] == shape[axis] - 1 and affinities[(axis, *v)] > low
        if leaves and (mask is None or mask[v]):
            foreground.add(v)
    seeds = {min(c): frozenset(c) for c in cluster.values() if len(c) >= min_seed}
    in_foreground_at_high = label_affinities(affinities, high, mask=mask) > 0
    seeds = {s: c for s, c in seeds.items() if in_foreground_at_high[s]}
    seed_of = {v: s for s, c in seeds.items() for v in c}
    between = [e for e in edges if low < e[0] <= high]
    for _, v, w, _ in sorted(between, key=lambda e: (-e[0], e[1], e[3])):
        held = {seed_of[u] for u in cluster[v] | cluster[w] if u in seed_of}
        if len(held) <= 1:
            join(v, w)
    labels, names = np.zeros(shape, int), {}
    for v in voxels:
        if v in foreground:
            labels[v] = names.setdefault(min(cluster[v]), len(names) + 1)
    return labels


def test_two_seeds_share_the_weak_voxels_between_them():
    # Along z: a -.9- a -.6- . -.7- b -.9- b; the voxel between goes to b, and the .6 edge
    # that would then merge the two stays cut.
    affinities = np.zeros((3, 1, 1, 5), np.float32)
    affinities[2, 0, 0] = [0.9, 0.6, 0.7, 0.9, 0]
    labels = grow_affinities(affinities, 0.8, 0.5, min_seed=2)
    assert labels.tolist() == [[[1, 1, 2, 2, 2]]]
    # Seeds of three voxels are none here: all join.
    assert grow_affinities(affinities, 0.8, 0.5, min_seed=3).max() == 1


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)),
    dtype=st.sampled_from([np.float16, np.float32]),
    low=st.sampled_from([0.0, 0.5]),
    min_seed=st.integers(1, 4),
    masked=st.booleans(),
)
def test_equals_the_definition(seed, shape, dtype, low, min_seed, masked):
    rng = np.random.default_rng(seed)
    # Two digits, so that many edges are equal; some differ in the last bit alone, which
    # is less than a bucket of float32 edges where they are sought from 0 up.
    affinities = rng.random((3, *shape)).round(2).astype(dtype)
    above = np.nextafter(affinities, dtype(1))
    affinities = np.where(rng.random(affinities.shape) < 0.5, affinities, above)
    mask = rng.random(shape) < 0.8 if masked else None
    edges = MaskedEdges(mask=mask)
    labels = grow_affinities(affinities, 0.75, low, min_seed=min_seed, edges=edges)
    np.testing.assert_array_equal(labels, grown(affinities, 0.75, low, min_seed, mask))


def test_integer_affinities_stand_for_their_share_of_255():
    affinities = (
        np.random.default_rng(0).integers(0, 256, (3, 5, 6, 7)).astype(np.uint8)
    )
    labels = grow_affinities(affinities, 0.8, 0.5, min_seed=3)
    as_real = (affinities / 255).astype(np.float32)
    expected = grow_affinities(as_real, 0.8, 0.5, min_seed=3)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("edge_offset", [0, 1])
def test_its_limits_are_plain_decodes(edge_offset):
    affinities = np.random.default_rng(0).random((3, 9, 8, 10)).astype(np.float16)
    mask = np.random.default_rng(1).random((9, 8, 10)) < 0.9
    for mask_edges in ("both", "source"):
        options = {"edge_offset": edge_offset, "mask": mask, "mask_edges": mask_edges}
        edges = MaskedEdges(**options)
        np.testing.assert_array_equal(
            grow_affinities(affinities, 0.7, 0.7, edges=edges),
            label_affinities(affinities, 0.7, **options),
        )
        np.testing.assert_array_equal(
            grow_affinities(affinities, 0.9, 0.6, min_seed=10**6, edges=edges),
            label_affinities(affinities, 0.6, **options),
        )


def test_with_a_margin_two_seeds_leave_what_they_reach_alike():
    # Along z: a -.9- a -.6- . -.55- . -.65- b -.9- b; the third voxel is reached at .6 and
    # .55, the fourth at .65 and .55. The pair below is reached by no seed.
    affinities = np.zeros((3, 1, 2, 6), np.float32)
    affinities[2, 0, 0] = [0.9, 0.6, 0.55, 0.65, 0.9, 0]
    affinities[2, 0, 1, 1] = 0.7
    found = grow_affinities(affinities, 0.8, 0.5, min_seed=1)
    assert found.tolist() == [[[1, 1, 1, 2, 2, 2], [0, 3, 3, 0, 0, 0]]]
    # A margin of 0 is the same; small seeds stay seeds with another one.
    for margin, grown in ((0.04, [1, 1, 1, 2, 2, 2]), (0.07, [1, 1, 0, 2, 2, 2])):
        found = grow_affinities(affinities, 0.8, 0.5, min_seed=100, margin=margin)
        assert found.tolist() == [[grown, [0] * 6]]
    # Labels count by first voxels: that of the second seed comes first now.
    affinities = np.zeros((3, 1, 2, 3), np.float32)
    affinities[2, 0] = [[0, 0.9, 0], [0.9, 0, 0]]
    affinities[1, 0, 0, 0] = 0.6
    found = grow_affinities(affinities, 0.8, 0.5, margin=0.1)
    assert found.tolist() == [[[1, 2, 2], [1, 1, 0]]]


def test_a_margin_outside_its_range_is_refused():
    with pytest.raises(
        InputError, match=r"decode.grow_margin is 1.5; wanted .* \[0, 1"
    ):
        grow_affinities(np.zeros((3, 2, 2, 2), np.float32), 0.7, 0.6, margin=1.5)


def test_a_low_threshold_above_the_seeds_is_refused():
    with pytest.raises(
        InputError,
        match=r"decode.low_threshold is 0.9, decode.threshold \(of the seeds\) 0.7",
    ):
        grow_affinities(np.zeros((3, 2, 2, 2), np.float32), 0.7, 0.9)
