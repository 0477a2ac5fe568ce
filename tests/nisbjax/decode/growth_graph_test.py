"""Growth to some voxels: the labels that `contested_growth` gives them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from nisbjax.decode.contested_growth import contested_growth
from nisbjax.decode.growth_graph import growth_graph, labels_at
from nisbjax.decode.masked_edges import MaskedEdges


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_labels_are_those_of_growth(data, seed):
    rng = np.random.default_rng(seed)
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    values = rng.random(data.draw(st.sampled_from([3, 12, 1000])))
    affinities = values[rng.integers(0, len(values), (3, *shape))].astype(np.float16)
    if data.draw(st.booleans()):
        affinities = (affinities * 255).astype(np.uint8)
    labels = rng.integers(1, 5, shape).astype(np.uint32)
    labels[rng.random(shape) < data.draw(st.sampled_from([0.5, 0.9, 0.98]))] = 0
    # Some labels stay whatever the trial is; the others may be free.
    fixed = (labels > 0) & (rng.random(shape) < 0.5)
    mask = rng.random(shape) < 0.9 if data.draw(st.booleans()) else None
    edges = MaskedEdges(data.draw(st.sampled_from([0, 1])), mask)
    wanted = np.flatnonzero(rng.random(labels.size) < 0.5)
    graph = growth_graph(affinities, fixed, wanted, (0.3, 0.2), edges)
    at = np.searchsorted(graph.voxels, wanted)
    low = data.draw(st.sampled_from([0.3, 0.5, 0.8]))
    margin = data.draw(st.sampled_from([0.01, 0.05, 0.2]))
    grown = contested_growth(affinities, labels, low, margin, edges=edges)
    named = labels.reshape(-1)
    found = labels_at(at, graph, graph.voxels, named, affinities.dtype, (low, margin))
    np.testing.assert_array_equal(found, grown.reshape(-1)[wanted])


def test_what_no_label_can_reach_is_left_out():
    """Along z, of 0-1 .9, 1-2 .1, 2-3 .9: voxel 0 needs the first edge alone."""
    affinities = np.zeros((3, 1, 1, 4), np.float16)
    affinities[2, 0, 0, :3] = 0.9, 0.1, 0.9
    fixed = np.zeros((1, 1, 4), bool)
    graph = growth_graph(affinities, fixed, np.array([0]), (0.4, 0.1), MaskedEdges())
    assert graph.voxels.tolist() == [0, 1]
    assert graph.others.tolist() == [1, 0]
