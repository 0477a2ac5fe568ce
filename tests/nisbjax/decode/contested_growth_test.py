import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nisbjax.decode.contested_growth import contested_growth, memory_bytes
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError


def test_the_worked_example():
    affinities = np.zeros((3, 1, 1, 5), np.float16)
    affinities[2, 0, 0] = [0.9, 0.8, 0.6, 0.75, 0]
    labels = np.array([[[1, 0, 0, 0, 2]]], np.uint32)
    # The other label comes by .6: behind by .3, .2 and .15.
    grown = [[[1, 1, 1, 2, 2]]], [[[1, 1, 1, 0, 2]]], [[[1, 1, 0, 0, 2]]]
    for margin, expected in zip((0.1, 0.16, 0.25), grown, strict=True):
        found = contested_growth(affinities, labels, 0.5, margin)
        assert found.tolist() == expected
        assert found.dtype == np.uint32
    # What comes by .75 or less is not taken, though it still contests.
    found = contested_growth(affinities, labels, 0.75, 0.25)
    assert found.tolist() == [[[1, 1, 0, 0, 2]]]
    # Equal ones contest each other, whatever comes first; labels themselves never change.
    affinities[2] = 0.75
    found = contested_growth(affinities, labels, 0.5, 0.01)
    assert found.tolist() == [[[1, 0, 0, 0, 2]]]
    found = contested_growth(affinities, np.ones_like(labels), 0.5, 0.01)
    assert (found == 1).all()


def grown(affinities, labels, low, margin, mask, edges):
    """Each label's bottlenecks by themselves, relaxed until nothing changes."""
    shape = labels.shape
    values = affinities.astype(np.float32)
    if affinities.dtype == np.uint8:
        values = (affinities / 255).astype(np.float32)
    pairs = []
    for v, axis in itertools.product(np.ndindex(*shape), range(3)):
        w = tuple(i + (a == axis) for a, i in enumerate(v))
        if w[axis] == shape[axis]:
            continue
        stored, other = (w, v) if edges.edge_offset else (v, w)
        value = float(values[(axis, *stored)])
        kept = mask is None or (mask[stored] and (mask[other] or not edges.both))
        if kept and value > 0:
            pairs += [(value, v, w), (value, w, v)]
    best = {}
    for name in np.unique(labels[labels != 0]).tolist():
        reached = {v: np.inf for v in np.ndindex(*shape) if labels[v] == name}
        changed = True
        while changed:
            changed = False
            for value, v, w in pairs:
                new = min(value, reached.get(v, 0))
                if labels[w] == 0 and new > reached.get(w, 0):
                    reached[w] = new
                    changed = True
        best[name] = reached
    found = labels.copy()
    floor = low if affinities.dtype == np.uint8 else float(affinities.dtype.type(low))
    for v in zip(*np.nonzero(labels == 0), strict=True):
        order = sorted(((r.get(v, 0), name) for name, r in best.items()), reverse=True)
        order += [(0, 0)] * 2
        (first, name), (second, _) = order[:2]
        taken = (
            first > floor
            if affinities.dtype != np.uint8
            else round(first * 255) / 255 > floor
        )
        if taken and not (second > 0 and first - second < margin):
            found[v] = name
    return found


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from([np.float16, np.float32, np.uint8]),
    levels=st.sampled_from([8, 16, 1000]),  # few: many edges are equal
    low=st.sampled_from([0.125, 0.5]),
    margin=st.sampled_from([0.001, 0.03, 0.125, 0.75]),
    masked=st.booleans(),
    options=st.tuples(st.integers(0, 1), st.sampled_from(["both", "source"])),
)
def test_equals_the_definition(
    seed, shape, dtype, levels, low, margin, masked, options
):
    rng = np.random.default_rng(seed)
    affinities = np.round(rng.random((3, *shape)) * levels) / levels
    affinities = (affinities * (255 if dtype == np.uint8 else 1)).astype(dtype)
    labels = rng.integers(1, 5, shape) * (rng.random(shape) < 0.25)
    mask = rng.random(shape) < 0.8 if masked else None
    edges = MaskedEdges(options[0], mask, mask_edges=options[1])
    found = contested_growth(affinities, labels, low, margin, edges=edges)
    expected = grown(affinities, labels, low, margin, mask, edges)
    np.testing.assert_array_equal(found, expected)


def test_memory_is_what_it_says():
    # float16: affinities 6, mask and image 2, bottlenecks 4, labels 8, trees 4, rings 4,
    # edges 12; and 8 for each of 65,536 counts.
    assert memory_bytes(np.dtype(np.float16), 1000) == 40 * 1000 + 8 * 65_536


@pytest.mark.parametrize(
    ("low", "margin", "message"),
    [
        (
            0.5,
            0.0,
            "margin of contested growth is 0.0; wanted more than 0 and at most 1",
        ),
        (0.5, 1.5, "margin of contested growth is 1.5"),
        (0.5, float("nan"), "margin of contested growth is nan"),
        (1.5, 0.1, "threshold 1.5"),
    ],
)
def test_bad_parameters_are_named(low, margin, message):
    affinities, labels = np.zeros((3, 2, 2, 2), np.float16), np.zeros((2, 2, 2), int)
    with pytest.raises(InputError, match=message):
        contested_growth(affinities, labels, low, margin)
