"""Skeletons that are straight lines, for tests of scores."""

import numpy as np

from nisbjax.skeletons import Skeletons


def lines(*nodes: int) -> Skeletons:
    """Skeletons 1, 2, ... of so many nodes each, 10 nm apart."""
    node_id = np.repeat(np.arange(1, len(nodes) + 1), nodes)
    index = np.stack([np.arange(len(node_id))] * 3, axis=1) * [1, 0, 0]
    edges = [
        (i, i + 1) for i in range(len(node_id) - 1) if node_id[i] == node_id[i + 1]
    ]
    return Skeletons(node_id, index, 10.0 * index, np.array(edges).reshape(-1, 2))
