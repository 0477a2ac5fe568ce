"""The skeletons of all boxes become those of the volume: joined, cut to trees, trimmed.

Boxes meet in the same voxels, so nodes of one label at one voxel are one node, and nothing
is searched for or moved; kimimaro's `postprocess` looks for near ends. Loops are opened and
short ends go, see `trimming`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from nisbjax.skeletonize import trimming
from nisbjax.skeletonize.box_skeletons import BoxSkeletons
from nisbjax.skeletons import Skeletons
from nisbjax.typing import FloatTriple


class Joined(NamedTuple):
    """Skeletons of a volume, and what became of its labels.

    Attributes:
      skeletons: nodes by id, then x, y, z; edges in their order. Each piece is a tree.
      labels: with as many voxels as were asked for, or more.
      dust: labels of fewer.
      without_edge: labels large enough whose skeleton has none.
      in_pieces: labels whose skeleton is of two pieces or more.
    """

    skeletons: Skeletons
    labels: int
    dust: int
    without_edge: int
    in_pieces: int


def join(
    parts: Sequence[BoxSkeletons],
    voxel_size_nm: FloatTriple,
    *,
    dust_voxels: int,
    tick_nm: float,
) -> Joined:
    """Joins what boxes found.

    Args:
      parts: of all boxes of a region, in any order.
      voxel_size_nm: x y z.
      dust_voxels: labels of fewer voxels in the region are left out.
      tick_nm: branches that end and are shorter than it are taken away, the shortest first,
        unless nothing would be left; 0 keeps all.
    """
    labels, row = np.unique(
        np.concatenate([part.label for part in parts]), return_inverse=True
    )
    counted = np.concatenate([part.voxels for part in parts])
    voxels = np.bincount(row, counted, minlength=len(labels)).astype(np.int64)
    large = labels[voxels >= dust_voxels]
    node_id, index, radius, edges = _one_graph(parts)
    edges = edges[np.isin(node_id[edges[:, 0]], large)]
    position = index * np.asarray(voxel_size_nm)
    closing = _closing(len(node_id), edges, radius)
    edges = _trimmed(node_id, position, radius, edges, closing, tick_nm)
    kept = np.zeros(len(node_id), bool)
    kept[edges] = True
    node_id, index, edges = node_id[kept], index[kept], _renumbered(edges, kept)
    pieces = _pieces_of_ids(node_id, edges)
    skeletons = Skeletons(node_id, index, index * np.asarray(voxel_size_nm), edges)
    return Joined(
        skeletons,
        labels=len(large),
        dust=len(labels) - len(large),
        without_edge=len(large) - len(pieces),
        in_pieces=int(np.count_nonzero(pieces > 1)),
    )


def _one_graph(
    parts: Sequence[BoxSkeletons],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes of all boxes, each voxel of a label once, by id and voxel; edges, each once."""
    counts = [len(part.node_id) for part in parts]
    offsets = np.cumsum([0, *counts[:-1]])
    node_id = np.concatenate([part.node_id for part in parts])
    index = np.concatenate([part.index for part in parts])
    radius = np.concatenate([part.radius_nm for part in parts])
    edges = np.concatenate(
        [part.edges + offset for part, offset in zip(parts, offsets, strict=True)]
    )
    order = np.lexsort((*index.T[::-1], node_id))
    rows = np.column_stack([node_id, index])[order]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    new = np.empty(len(rows), np.int64)
    new[order] = np.cumsum(first) - 1
    largest = np.zeros(int(first.sum()), np.float32)
    np.maximum.at(largest, new, radius)
    edges = np.sort(new[edges], axis=1)
    edges = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)
    return rows[first, 0], rows[first, 1:], largest, edges


def _closing(
    count: int, edges: Int64[np.ndarray, "e 2"], radius: Float32[np.ndarray, " n"]
) -> Bool[np.ndarray, " e"]:
    """Edges that close loops: without them all is connected as before, by thicker ones."""
    thin = np.minimum(radius[edges[:, 0]], radius[edges[:, 1]])
    order = np.lexsort((edges[:, 1], edges[:, 0], -thin))
    rank = np.empty(len(edges))
    rank[order] = np.arange(1, len(edges) + 1)  # all different, so the tree is one
    graph = coo_array((rank, (edges[:, 0], edges[:, 1])), (count, count))
    kept = minimum_spanning_tree(graph.tocsr()).tocoo().data
    return ~np.isin(rank, kept)


def _trimmed(
    node_id: Int64[np.ndarray, " n"],
    position: Float64[np.ndarray, "n 3"],
    radius: Float32[np.ndarray, " n"],
    edges: Int64[np.ndarray, "e 2"],
    closing: Bool[np.ndarray, " e"],
    tick_nm: float,
) -> Int64[np.ndarray, "t 2"]:
    """The edges without loops and ticks, label by label; ordered as they were."""
    lengths = np.linalg.norm(position[edges[:, 0]] - position[edges[:, 1]], axis=1)
    degree = np.bincount(edges.ravel(), minlength=len(node_id))
    of_edge = node_id[edges[:, 0]]  # ascending, as nodes and edges are ordered
    # Whoever has no loop and no branching stays as it is.
    touched = np.union1d(of_edge[closing], node_id[degree > 2])
    first = np.searchsorted(of_edge, touched)
    last = np.searchsorted(of_edge, touched, side="right")
    kept = [edges[~np.isin(of_edge, touched)]]
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        own = slice(begin, end)
        graph = trimming.graph_of(edges[own], lengths[own])
        loops = edges[own][closing[own]]
        thin = np.minimum(radius[loops[:, 0]], radius[loops[:, 1]])
        order = np.lexsort((loops[:, 1], loops[:, 0], thin))
        trimming.open_loops(graph, loops[order], position, radius)
        if tick_nm > 0:
            trimming.remove_ticks(graph, tick_nm)
        left = trimming.edges_of(graph)
        kept.append(np.array(left, np.int64).reshape(-1, 2))
    edges = np.concatenate(kept)
    return edges[np.lexsort((edges[:, 1], edges[:, 0]))]


def _pieces_of_ids(
    node_id: Int64[np.ndarray, " n"], edges: Int64[np.ndarray, "e 2"]
) -> Int64[np.ndarray, " k"]:
    """How many pieces the skeleton of each id consists of, in the order of the ids."""
    count = len(node_id)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    _, piece = connected_components(graph, directed=False)
    _, first = np.unique(piece, return_index=True)
    return np.unique(node_id[first], return_counts=True)[1]


def _renumbered(
    edges: Int64[np.ndarray, "e 2"], kept: Bool[np.ndarray, " n"]
) -> Int64[np.ndarray, "e 2"]:
    return (np.cumsum(kept) - 1)[edges]
