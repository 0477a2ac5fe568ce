"""Which pairs a region graph gives, and what they become when labels join."""

import numpy as np
import pytest

from nisbjax.decode.agglomeration import tables
from nisbjax.decode.agglomeration.evidence import UNIT
from nisbjax.decode.agglomeration.pairs import Evidence, load_pairs, memory_bytes
from nisbjax.decode.agglomeration.region_graph import RegionGraph
from nisbjax.errors import InputError


def graph_of(folder, rows, bins=1):
    """A region graph of these rows; totals are given in logits."""
    rows = np.array([[*r[:4], round(r[4] * UNIT)] for r in sorted(rows)], np.int64)
    tables.write(folder / "links.rows", rows)
    own = rows[:, 0] == rows[:, 1]
    pairs = {(a, b) for a, b in rows[~own, :2].tolist()}
    return RegionGraph(folder, bins, len(rows), len(pairs), int(own.sum()))


ROWS = [
    *[(label, label, 0, voxels, 0) for label, voxels in ((3, 9), (5, 8), (8, 70))],
    (3, 5, 0, 4, 6.0),  # four faces
    (3, 5, 1, 2, -3.0),  # and links of two channels
    (3, 5, 2, 1, 0.5),
    (3, 8, 0, 3, 9.0),  # three faces: too few
    (5, 8, 0, 3, 9.0),  # likewise, but a link counts
    (5, 8, 2, 2, 1.0),
]


def test_faces_and_links_are_weighed(tmp_path):
    graph = graph_of(tmp_path, ROWS)
    pairs = load_pairs(graph, Evidence(faces=4, short=0.5, long=0.25), memory_gb=1.0)
    assert pairs.names.tolist() == [3, 5, 8]
    assert pairs.voxels.tolist() == [9, 8, 70]
    # 3-5: 6 - 4 x .5 = 4 and -3 + .5 - 3 x .25 = -3.25; 5-8: 1 - 2 x .25 = .5; 3-8: nothing.
    assert list(zip(pairs.low.tolist(), pairs.high.tolist(), strict=True)) == [
        (0, 1),
        (1, 2),
    ]
    assert pairs.touching.tolist() == [True, False]
    assert pairs.number.tolist() == [7, 2]
    assert (pairs.total / UNIT).tolist() == [0.75, 0.5]


def test_long_links_may_be_left_out(tmp_path):
    graph = graph_of(tmp_path, ROWS)
    pairs = load_pairs(graph, Evidence(faces=1, short=0.0, long=None), memory_gb=1.0)
    assert pairs.number.tolist() == [4, 3, 3]
    assert (pairs.total / UNIT).tolist() == [6.0, 9.0, 9.0]


def test_histograms_are_those_of_pairs_that_touch(tmp_path):
    own = [(label, label, 0, 1, 0) for label in (1, 2, 3)]
    faces = [(1, 2, 7, 2, 0), (1, 2, 200, 3, 0), (2, 3, 9, 1, 0), (1, 3, 257, 5, 0)]
    graph = graph_of(tmp_path, own + faces, bins=256)
    pairs = load_pairs(graph, Evidence(faces=2), memory_gb=1.0, histogram=True)
    # 1-2 has five faces; 2-3 one, and so none that counts; 1-3 is a long link.
    assert pairs.low.tolist() == [0, 0]
    assert pairs.high.tolist() == [1, 2]
    assert np.argwhere(pairs.histogram).tolist() == [[0, 7], [0, 200]]
    assert pairs.histogram[0, [7, 200]].tolist() == [2, 3]


def test_joined_pairs_add_their_links(tmp_path):
    own = [(label, label, 0, label, 0) for label in (1, 2, 3, 4)]
    links = [
        (1, 2, 0, 1, 1.0),
        (1, 3, 0, 2, 4.0),
        (2, 3, 1, 5, -6.0),
        (3, 4, 0, 1, 2.0),
    ]
    graph = graph_of(tmp_path, own + links)
    pairs = load_pairs(graph, Evidence(1, 0.0, 0.0), memory_gb=1.0)
    # Positions 0 and 1 become 0: 0-1 is gone, 0-2 has 2 + 5 links, 4 - 6 in sum.
    found = pairs.joined(np.array([0, 0, 2, 3]))
    assert (found.low.tolist(), found.high.tolist()) == ([0, 2], [2, 3])
    assert found.touching.tolist() == [True, True]
    assert found.number.tolist() == [7, 1]
    assert (found.total / UNIT).tolist() == [-2.0, 2.0]
    assert found.voxels.tolist() == [3, 0, 3, 4]
    alone = pairs.joined(np.zeros(4, np.int64))
    assert alone.low.size == 0
    assert alone.voxels.tolist() == [10, 0, 0, 0]


def test_memory_is_counted_by_pair_and_label():
    # 8 + 1 + 16 + 9 x 4 + 8 = 69 bytes a pair, 40 a label, 4 x 256 a histogram.
    assert memory_bytes(10, 2) == 770
    assert memory_bytes(1, 0, histogram=True) == 69 + 1024
    # With another way behind: 2 x 25 + 16 + 64 = 130 a pair, 64 a label, three histograms.
    assert memory_bytes(10, 2, ways=2) == 1300 + 128
    assert memory_bytes(1, 0, histogram=True, ways=2) == 130 + 3 * 1024
    assert memory_bytes(1 << 30, 0) == (1 << 30) * (16 + 1 + 16 + 72 + 8)


def test_too_little_memory_is_refused_before_a_pair_is_read(tmp_path):
    graph = RegionGraph(tmp_path, 1, 10**9, 5 * 10**8, 10**7)
    with pytest.raises(
        InputError, match=r"500000000 pairs of 10000000 fragments may need"
    ):
        load_pairs(graph, Evidence(), memory_gb=8.0)


def test_a_graph_without_histograms_is_refused(tmp_path):
    graph = graph_of(tmp_path, ROWS)
    with pytest.raises(InputError, match="has no histograms of affinities"):
        load_pairs(graph, Evidence(), memory_gb=1.0, histogram=True)


@pytest.mark.parametrize(
    "values, said",
    [
        ({"faces": 0}, "decode.faces is 0; wanted 1 or more"),
        ({"short": float("nan")}, "decode.short is nan; wanted a finite logit"),
        ({"long": float("inf")}, "decode.long is inf; wanted a finite logit"),
    ],
)
def test_evidence_that_means_nothing_is_refused(values, said):
    with pytest.raises(InputError, match=said):
        Evidence(**values)
