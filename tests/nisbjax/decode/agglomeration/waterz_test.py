"""Quantiles of affinities join what waterz joins."""

import numpy as np
import pytest

from nisbjax.decode.agglomeration.joins import quantile
from nisbjax.decode.agglomeration.pairs import Evidence, load_pairs
from nisbjax.decode.agglomeration.region_graph import region_graph
from nisbjax.store.volume import from_array

SHAPE = (8, 9, 10)


def blocks():
    """Fragments of 4 x 3 x 5 voxels, 1..12."""
    x, y, z = np.indices(SHAPE)
    return (1 + (x // 4) * 6 + (y // 3) * 2 + z // 5).astype(np.uint64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("percent, threshold", [(50, 0.4), (75, 0.45), (85, 0.3)])
def test_joins_are_those_of_waterz(tmp_path, seed, percent, threshold):
    waterz = pytest.importorskip("waterz", reason="pip install 'nisbjax[waterz]'")
    random = np.random.default_rng(seed)
    fragments = blocks()
    # A share for each fragment, so that pairs differ; few quantiles are equal then.
    own = random.random(13)[fragments.astype(int)]
    affinities = (0.6 * random.random((3, *SHAPE)) + 0.4 * own).astype(np.float32)
    # waterz stores the edge between two voxels at the upper one.
    upper = np.zeros_like(affinities)
    for axis in range(3):
        np.moveaxis(upper[axis], axis, 0)[1:] = np.moveaxis(affinities[axis], axis, 0)[
            :-1
        ]
    statistic = f"HistogramQuantileAffinity<RegionGraphType, {percent}, ScoreValue, 256"
    (wanted,) = waterz.agglomerate(
        upper,
        [threshold],
        fragments=fragments.copy(),
        scoring_function=f"OneMinus<{statistic}, true>>",
    )
    graph = region_graph(
        from_array(fragments, "xyz"),
        from_array(affinities, "cxyz"),
        tmp_path,
        memory_gb=1.0,
        histograms=True,
    )
    evidence = Evidence(faces=1, long=None)
    pairs = load_pairs(graph, evidence, memory_gb=1.0, histogram=True)
    became = quantile(pairs, float(percent), threshold)
    joined = pairs.names[became][fragments.astype(int) - 1]
    both = np.unique(np.stack([joined.ravel(), np.asarray(wanted).ravel()]), axis=1)
    assert both.shape[1] == len(np.unique(joined)) == len(np.unique(wanted)) < 12
