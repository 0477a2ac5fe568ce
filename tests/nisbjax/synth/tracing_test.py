"""Skeletons follow their labels."""

import numpy as np
from small_neurites import SIZE_NM, line

from nisbjax.geometry import Box
from nisbjax.store import volume
from nisbjax.synth import tracing


def test_skeletons_move_into_labels_and_join_over_gaps():
    labels = np.zeros((30, 30, 30), np.uint16)
    labels[5:26, 10, 10] = 1
    labels[15, 10, 10] = 0
    # Voxels of five samples in a row: in the label; in it; one beside it; off by four
    # (left out); in it. And a neurite whose label vanished.
    positions = [(5, 10, 10), (9, 10, 10), (13, 11, 10), (17, 14, 10), (21, 10, 10)]
    positions += [(20, 20, 20), (24, 20, 20)]
    lines = line(positions, [-1, 0, 1, 2, 3, -1, 5], [1] * 5 + [2] * 2)
    stored = volume.from_array(labels, "xyz")
    whole = Box.whole((30, 30, 30))
    for box_shape in ((30, 30, 30), (7, 11, 30)):
        graph = tracing.skeleton_graph(lines, whole, stored, SIZE_NM, box_shape)
        at = [graph.nodes[n]["index_position"] for n in graph]
        assert at == [(5, 10, 10), (9, 10, 10), (13, 10, 10), (21, 10, 10)]
        assert list(graph.edges) == [(0, 1), (1, 2), (2, 3)]
    # Where the labelled part ends in between, nothing is joined.
    graph = tracing.skeleton_graph(lines, Box((0, 0, 0), (30, 13, 30)), stored, SIZE_NM)
    assert list(graph.edges) == [(0, 1), (1, 2)]
