"""NISB's `skeleton.pkl`: a pickled `networkx.Graph` of all skeletons of a cube.

One undirected graph whose nodes have `id`, `index_position` and `nm_position` (site
structuralneurobiologylab.github.io/nisb, BANIS `metrics.py`). BANIS and PyTC load it by a
`pickle.load` that runs whatever code the file names; here `graph_pickle` reads it inertly.
"""

import itertools
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nisbjax.errors import InputError
from nisbjax.skeletons import graph_pickle
from nisbjax.skeletons.arrays import Skeletons
from nisbjax.store import files
from nisbjax.store.schema import shown
from nisbjax.typing import FloatTriple

_A_NUMBER = (int, float, np.integer, np.floating, np.bool_)


def read(path: Path, voxel_size_nm: FloatTriple | None, max_nodes: int) -> Skeletons:
    """Nodes in the file's order, none dropped.

    Args:
      path: of a pickle of any networkx from 1.11.
      voxel_size_nm: where a file has no `nm_position`, index times this [nm] instead.
      max_nodes: refuse a graph of more nodes.

    Raises:
      InputError: a damaged pickle, one that names anything but a graph, or nodes without
        what an evaluation needs.
    """
    return _flatten(graph_pickle.read(path), path, voxel_size_nm, max_nodes)


def write(skeletons: Skeletons, path: str | os.PathLike) -> None:
    """Replaces a file by the graph that BANIS and PyTC load, nodes 0, 1 .. in their order."""
    import networkx  # a fifth of a second, and nobody who reads needs it

    graph = networkx.Graph()
    columns = skeletons.node_id, skeletons.index_position, skeletons.position_nm
    for node, (identity, index, nm) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        graph.add_node(
            node, id=identity, index_position=tuple(index), nm_position=tuple(nm)
        )
    graph.add_edges_from(skeletons.edges.tolist())
    with files.replacing(path) as temporary:
        temporary.write_bytes(pickle.dumps(graph, protocol=4))


def _flatten(
    graph: Mapping[str, Any],
    path: Path,
    voxel_size_nm: FloatTriple | None,
    max_nodes: int,
) -> Skeletons:
    # networkx 1 calls them node and adj; later ones keep views under these names
    nodes = graph.get("_node", graph.get("node"))
    adjacency = graph.get("_adj", graph.get("adj"))
    if not isinstance(nodes, dict) or not isinstance(adjacency, dict):
        raise InputError(f"{path} holds a graph without nodes and adjacency")
    if len(nodes) > max_nodes:
        raise InputError(f"{path} holds {len(nodes)} nodes, over the limit {max_nodes}")
    if not nodes:
        raise InputError(f"{path} holds a graph without nodes; wanted skeletons")
    attributes = list(nodes.values())
    if any(type(each) is not dict for each in attributes):
        raise InputError(
            f"{path} holds nodes that are no dicts of attributes; wanted id, "
            "index_position, nm_position on every node"
        )
    node_id = _column(attributes, "id", (), path, integral=True)
    index = _column(attributes, "index_position", (3,), path, integral=True)
    if voxel_size_nm is not None and not any("nm_position" in a for a in attributes):
        position_nm = index * np.asarray(tuple(voxel_size_nm), float)
    else:
        position_nm = _column(attributes, "nm_position", (3,), path, integral=False)
    row = {node: i for i, node in enumerate(nodes)}
    try:
        both = [(row[u], row[v]) for u, near in adjacency.items() for v in near]
    except (KeyError, TypeError):
        raise InputError(f"{path} has edges to nodes that it does not hold") from None
    pairs = np.array(both, np.int64).reshape(-1, 2)
    edges = pairs[pairs[:, 0] <= pairs[:, 1]]
    loops = np.count_nonzero(pairs[:, 0] == pairs[:, 1])
    if len(pairs) != 2 * len(edges) - loops:
        raise InputError(f"{path} holds a directed graph; wanted an undirected one")
    return Skeletons(node_id, index, position_nm, edges, source=str(path))


def _column(
    attributes: list[Any], name: str, shape: tuple, path: Path, *, integral: bool
) -> np.ndarray:
    """One attribute of all nodes as int64 or float64 `[n *shape]`."""
    missing = [i for i, a in enumerate(attributes) if a.get(name) is None]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(attributes)} nodes have no {name!r}, the "
            f"first of them at row {missing[0]}; wanted id, index_position, nm_position "
            "on every node"
        )
    values = [a[name] for a in attributes]
    if values and isinstance(values[0], graph_pickle.Array):
        values = [v.array if isinstance(v, graph_pickle.Array) else v for v in values]
    try:
        # Looked at first: numpy takes text for numbers, or pads it to the longest.
        items = itertools.chain.from_iterable(values) if shape else values
        if any(not issubclass(kind, _A_NUMBER) for kind in set(map(type, items))):
            raise ValueError
        column = np.array(values, dtype=None if integral else np.float64)
        if column.shape != (len(values), *shape) or column.dtype.kind not in "iufb":
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise InputError(
            f"{path}: {name!r} of some nodes is not {'three numbers' if shape else 'a number'}; "
            f"the first node has {shown(values[0])}"
        ) from None
    if not np.isfinite(column).all():
        raise InputError(f"{path}: {name!r} of some nodes is not finite")
    if not integral:
        return column
    # compared in its own type first, as a cast out of range would wrap around
    fits = (column < np.float64(2**63)) & (column >= np.float64(-(2**63)))
    whole = np.where(fits, column, 0).astype(np.int64)
    if not np.array_equal(whole, column):
        raise InputError(
            f"{path}: {name!r} of some nodes is not a whole number that fits int64; "
            f"the first node has {shown(values[0])}"
        )
    return whole
