"""Skeletons of the two neurites of `scored_files`, and a configuration."""

import pickle

import networkx as nx
import pytest

from nisbjax.config import base_config


@pytest.fixture
def inputs(tmp_path):
    """Skeletons through both neurites, 12 nodes each, voxels of 9 x 9 x 12 nm."""
    graph = nx.Graph()
    for neurite, y in ((3, 0), (5, 3)):
        for x in range(12):
            graph.add_node(
                (neurite, x),
                id=neurite,
                index_position=(x, y, x % 4),
                nm_position=(9.0 * x, 9.0 * y, 12.0 * (x % 4)),
            )
            if x:
                graph.add_edge((neurite, x - 1), (neurite, x))
    path = tmp_path / "skeleton.pkl"
    path.write_bytes(pickle.dumps(graph))
    return path


@pytest.fixture
def config():
    return base_config()
