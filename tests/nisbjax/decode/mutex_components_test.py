import itertools

import hypothesis
import hypothesis.strategies as st
import mwatershed
import numpy as np
import pytest

from nisbjax.decode import mutex_components as module
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex_components import memory_bytes, mutex_components
from nisbjax.errors import InputError

OFFSETS = (
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (0, 2, 0),
    (-2, 1, 0),
    (0, -1, 0),
    (0, 0, 9),
)


def test_the_worked_example():
    affinities = np.zeros((2, 1, 1, 4), np.float32)
    affinities[:, 0, 0] = [[0.9, 0.6, 0.8, 0.5], [0.5, 0.2, 0.9, 0.9]]
    offsets = ((0, 0, 1), (0, 0, 2))
    found = mutex_components(affinities, offsets)
    assert found.tolist() == [[[1, 1, 2, 2]]]
    # Long edges repel by .8 less, so by .00 and 1.39: 0.21 still comes after 1.39.
    found = mutex_components(affinities, offsets, repel=0.0)
    assert found.tolist() == [[[1, 1, 2, 2]]]
    # Now by nothing at all.
    found = mutex_components(affinities, offsets, repel=-2.0)
    assert found.tolist() == [[[1, 1, 1, 1]]]
    # Attraction above 1.0 alone: what 1-2 says is gone, and voxels without any too.
    affinities[0, 0, 0, 2] = 0.6
    found = mutex_components(affinities, offsets, attract=1.0)
    assert found.tolist() == [[[1, 1, 0, 0]]]


def taken(affinities, offsets, attract, repel, strides, mask, edges):
    """Edges as (signed weight, channel, voxel, other voxel), in the order stated."""
    shape = affinities.shape[1:]
    values = affinities.astype(np.float64)
    if affinities.dtype == np.uint8:
        values /= 255
    found = []
    for c, v in itertools.product(range(len(offsets)), np.ndindex(*shape)):
        short = sum(map(abs, offsets[c])) == 1
        sign = -1 if edges.edge_offset else 1
        u = tuple(i + sign * o for i, o in zip(v, offsets[c], strict=True))
        if any(not 0 <= i < s for i, s in zip(u, shape, strict=True)):
            continue
        if not short and any(i % s for i, s in zip(v, strides, strict=True)):
            continue
        if mask is not None and not (mask[v] and (mask[u] or not edges.both)):
            continue
        if np.isnan(values[(c, *v)]):
            continue
        p = min(max(values[(c, *v)], 0.001), 0.999)
        logit = np.log(p / (1 - p))
        weight = max(logit - attract, 0) if short else min(logit - repel, 0)
        weight = round(weight * 2**20) / 2**20
        if weight:
            found.append((weight, c, v, u))
    return sorted(found, key=lambda e: (-abs(e[0]), e[1], e[2]))


def by_mwatershed(edges, shape, channels, offsets, seeds):
    """Its labels, where the strengths of equal edges differ by the order stated.

    A plane of background in front keeps voxel 0, whose number it takes for background, out
    of all segments.
    """
    weights = np.zeros((channels, shape[0] + 1, *shape[1:]))
    for i, (weight, c, v, _) in enumerate(edges):
        weights[c, v[0] + 1, v[1], v[2]] = np.copysign(len(edges) - i, weight)
    padded = None
    if seeds is not None:
        padded = np.zeros(weights.shape[1:], np.uint64)
        padded[1:] = np.where(seeds > 0, seeds.astype(np.uint64) + 10_000, 0)
    reach = [list(map(int, offset)) for offset in offsets]
    return mwatershed.agglom(weights, offsets=reach, seeds=padded)[1:]


def in_c_order(labels):
    names = {0: 0}
    for label in labels.ravel().tolist():
        names.setdefault(label, len(names))
    return np.vectorize(names.get)(labels)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.data())
def test_equals_mwatershed(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = tuple(data.draw(st.tuples(*[st.integers(1, 7)] * 3)))
    offsets = (
        *OFFSETS[:3],
        *data.draw(st.lists(st.sampled_from(OFFSETS[3:]), unique=True)),
    )
    dtype = data.draw(st.sampled_from([np.float16, np.uint8, np.float32]))
    affinities = rng.random((len(offsets), *shape))
    levels = data.draw(st.sampled_from([2, 6, 255]))  # few levels: many ties
    affinities = np.round(affinities * levels) / levels
    affinities = (affinities * (255 if dtype == np.uint8 else 1)).astype(dtype)
    if dtype != np.uint8:
        affinities[rng.random(affinities.shape) < 0.02] = np.nan
    attract, repel = data.draw(st.sampled_from([(0.2, 0.8), (0.0, 0.0), (-1.5, 3.0)]))
    strides = data.draw(st.sampled_from([(1, 1, 1), (2, 1, 3)]))
    masked = data.draw(st.booleans())
    mask = rng.random(shape) < 0.9 if masked else None
    seeded = data.draw(st.booleans())
    seeds = rng.integers(0, 3, shape) * (rng.random(shape) < 0.2) if seeded else None
    edges = MaskedEdges(
        data.draw(st.integers(0, 1)),
        mask,
        mask_edges=data.draw(st.sampled_from(["both", "source"])),
    )
    room = data.draw(st.sampled_from([1, 2]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROOM", room)  # ranks then take turns, and channels too
        found = mutex_components(
            affinities,
            offsets,
            attract=attract,
            repel=repel,
            strides=strides,
            seeds=seeds,
            edges=edges,
        )
    sign = -1 if edges.edge_offset else 1
    order = taken(affinities, offsets, attract, repel, strides, mask, edges)
    reach = sign * np.asarray(offsets)
    inside = (np.abs(reach) < np.asarray(shape) + (1, 0, 0)).all(1)  # else it panics
    kept = [i for i in range(len(offsets)) if inside[i]]
    order = [(w, kept.index(c), v, u) for w, c, v, u in order]
    expected = by_mwatershed(order, shape, len(kept), reach[kept], seeds)
    np.testing.assert_array_equal(found, in_c_order(expected))


def test_seeds_stay_apart_and_grow():
    # Along z: 7 . . 5, all edges strong: the first ones in C order win, 3 keeps its voxel.
    affinities = np.full((3, 1, 1, 4), 0.9, np.float16)
    seeds = np.array([[[7, 0, 0, 5]]])
    offsets = OFFSETS[:3]
    found = mutex_components(affinities, offsets, seeds=seeds)
    assert found.tolist() == [[[1, 1, 1, 2]]]
    # Voxels of one seed are one, without an edge too.
    seeds = np.array([[[7, 0, 7, 0]]])
    found = mutex_components(affinities * 0, offsets, seeds=seeds)
    assert found.tolist() == [[[1, 0, 1, 0]]]


def test_memory_is_what_it_says():
    # Six channels: float16 12, parent 4, rings 8 and 36, edges 8.
    assert memory_bytes(np.dtype(np.float16), 1000) == 68_000
    # Half-edges of 2^31 and more take 8 bytes each: 12 + 112.
    assert memory_bytes(np.dtype(np.float16), 2**30) == 124 * 2**30


def test_no_voxels_no_edges():
    assert mutex_components(np.zeros((3, 0, 4, 4), np.float16), OFFSETS[:3]).size == 0
    assert not mutex_components(np.zeros((3, 4, 4, 4), np.uint8), OFFSETS[:3]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offsets": OFFSETS[:2]}, "3 channels for 2 offsets"),
        ({"offsets": ((1, 0, 0), (0, 1, 0), (0, 0, 0))}, r"none \(0, 0, 0\)"),
        ({"attract": float("nan")}, "attract is nan; wanted a finite logit"),
        ({"repel": float("inf")}, "repel is inf; wanted a finite logit"),
        ({"strides": (1, 0, 1)}, r"strides are \(1, 0, 1\)"),
        ({"seeds": np.ones((4, 4, 3), int)}, r"seeds have shape \(4, 4, 3\), aff"),
        ({"mask": np.ones((4, 4, 3), bool)}, r"\(4, 4, 3\)"),
    ],
)
def test_bad_input_is_named(options, message):
    options = {"offsets": OFFSETS[:3], **options}
    with pytest.raises(InputError, match=message):
        mutex_components(np.zeros((3, 4, 4, 4), np.float16), **options)


def test_another_type_is_named():
    with pytest.raises(InputError, match="affinities are float64; wanted float16"):
        mutex_components(np.zeros((3, 4, 4, 4)), OFFSETS[:3])
