"""A graph of four nodes as NISB stores skeletons, and what is to be read of it."""

import pickle

import networkx as nx
import numpy as np
import pytest

from nisbjax import skeletons


def tiny_graph() -> nx.Graph:
    """A path 5-3-4 of segment 11 and a lone node 9 of segment 12; 9 x 9 x 12 nm."""
    graph = nx.Graph()
    for node, segment, index in (
        (5, 11, (0, 0, 0)),
        (3, 11, (1, 0, 0)),
        (4, 11, (1, 2, 3)),
        (9, 12, (4, 4, 4)),
    ):
        nm = tuple(float(i * v) for i, v in zip(index, (9, 9, 12), strict=True))
        graph.add_node(node, id=segment, index_position=index, nm_position=nm)
    graph.add_edge(4, 3)
    graph.add_edge(5, 3)
    return graph


def written(tmp_path, content, protocol=4):
    path = tmp_path / "skeleton.pkl"
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    path.write_bytes(data)
    return path


def check_tiny(loaded: skeletons.Skeletons) -> None:
    # rows follow the file's nodes 5 3 4 9
    assert loaded.node_id.tolist() == [11, 11, 11, 12]
    assert loaded.index_position.tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 2, 3],
        [4, 4, 4],
    ]
    assert loaded.position_nm.dtype == np.float64
    assert loaded.position_nm[2].tolist() == [9, 18, 36]
    assert loaded.edges.tolist() == [[0, 1], [1, 2]]
    # |(9, 18, 36) - (9, 0, 0)| = sqrt(18^2 + 36^2)
    assert loaded.edge_lengths_nm == pytest.approx([9, 1620**0.5])
