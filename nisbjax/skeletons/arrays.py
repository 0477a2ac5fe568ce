"""Skeletons of a volume as flat arrays, read from NISB's `skeleton.pkl`.

The file is a pickle of one undirected `networkx.Graph` that holds every skeleton of a
cube (site structuralneurobiologylab.github.io/nisb, BANIS `metrics.py`). BANIS and PyTC
walk the graph itself at each evaluation, after a `pickle.load` that runs whatever code
the file names; here `graph_pickle` reads it inertly, once, and flat arrays are kept.
"""

import hashlib
import itertools
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float64, Int64

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.skeletons import graph_pickle
from nisbjax.store import files, npy
from nisbjax.store.schema import shown
from nisbjax.typing import FloatTriple

MAX_BYTES = 1 << 30  # NISB's cubes have some 60 MB
MAX_NODES = 200_000_000


@dataclass(frozen=True, eq=False)
class Skeletons:
    """All skeletons of one volume.

    Attributes:
      node_id: ground-truth segment of each node, the value that `seg` holds there.
      index_position: voxel index of each node, x y z.
      position_nm: position of each node [nm], x y z.
      edges: rows of the two nodes of each edge.
      source: where the skeletons came from, for messages.
    """

    node_id: Int64[np.ndarray, " n"]
    index_position: Int64[np.ndarray, "n 3"]
    position_nm: Float64[np.ndarray, "n 3"]
    edges: Int64[np.ndarray, "e 2"]
    source: str = "memory"

    @property
    def edge_lengths_nm(self) -> Float64[np.ndarray, " e"]:
        """Euclidean length of each edge [nm]; the file itself stores none."""
        ends = self.position_nm[self.edges]
        return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)

    def voxel_size_nm(self) -> Float64[np.ndarray, " 3"]:
        """Slope of `position_nm` over `index_position` per axis; nan on a flat axis."""
        index = self.index_position - self.index_position.mean(axis=0)
        position = self.position_nm - self.position_nm.mean(axis=0)
        spread = (index * index).sum(axis=0)
        slope = (index * position).sum(axis=0) / np.where(spread > 0, spread, 1)
        return np.where(spread > 0, slope, np.nan)

    def within(self, box: Box) -> "Skeletons":
        """The part in a box: nodes there, edges with both ends there.

        Voxel indices count from the box; positions in nm stay.
        """
        start, stop = np.asarray(box.start), np.asarray(box.stop)
        kept = np.all(
            (self.index_position >= start) & (self.index_position < stop), axis=1
        )
        row = np.cumsum(kept) - 1
        edges = self.edges[kept[self.edges].all(axis=1)]
        return Skeletons(
            self.node_id[kept],
            self.index_position[kept] - start,
            self.position_nm[kept],
            row[edges],
            self.source,
        )

    def resolution_note(self, voxel_size_nm: FloatTriple) -> str:
        """A sentence if the configured voxel size [nm] disagrees by over 1 %, else ""."""
        wanted = np.asarray(tuple(voxel_size_nm), float)
        found = self.voxel_size_nm()
        known = np.isfinite(found)
        if np.all(np.abs(found - wanted)[known] <= 0.01 * wanted[known]):
            return ""
        return (
            f"{self.source}: its nm positions mean voxels of {_in_words(found)} nm, but "
            f"data.voxel_size_nm is {_in_words(wanted)}; lengths are taken from the file"
        )


def load(
    path: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    voxel_size_nm: FloatTriple | None = None,
    max_bytes: int = MAX_BYTES,
    max_nodes: int = MAX_NODES,
) -> Skeletons:
    """Reads `skeleton.pkl`: nodes in the file's order, none dropped.

    Args:
      path: a pickled `networkx.Graph` (any version from 1.11) whose nodes carry `id`,
        `index_position` [voxel] and `nm_position` [nm].
      cache: a folder for the flat arrays, named by the sha256 of the pickle, so that
        the next call on the same content is some fifty times faster.
      voxel_size_nm: where a file has no `nm_position`, index times this [nm] instead.
      max_bytes: refuse a larger file.
      max_nodes: refuse a graph of more nodes.

    Raises:
      InputError: no such file, too large, a damaged pickle, a pickle that names
        anything but a graph, or nodes without what an evaluation needs.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no skeleton file at {path}; wanted NISB's skeleton.pkl")
    size = path.stat().st_size
    if size > max_bytes:
        raise InputError(
            f"{path} has {size} bytes, more than the limit of {max_bytes}; "
            "it is hardly a skeleton file"
        )
    cached = None
    if cache is not None:
        digest = content_hash(path, voxel_size_nm)
        cached = Path(cache) / f"skeletons_{digest[:16]}.npz"
        try:
            with open(cached, "rb") as file, npy.Archive(file) as arrays:
                return Skeletons(**{k: arrays[k] for k in _FIELDS}, source=str(path))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            logging.warning("%s is damaged; reading %s again", cached, path)
    graph = graph_pickle.read(path)
    skeletons = _flatten(graph, path, voxel_size_nm, max_nodes)
    if cached is not None:
        with files.replacing(cached) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{k: getattr(skeletons, k) for k in _FIELDS})
    return skeletons


def content_hash(
    path: str | os.PathLike[str], voxel_size_nm: FloatTriple | None = None
) -> str:
    """sha256 of the file, and of the voxel size where one stands in for nm positions."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if voxel_size_nm is not None:
        digest.update(repr(tuple(map(float, voxel_size_nm))).encode())
    return digest.hexdigest()


_A_NUMBER = (int, float, np.integer, np.floating, np.bool_)
_FIELDS = ("node_id", "index_position", "position_nm", "edges")


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


def _in_words(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
