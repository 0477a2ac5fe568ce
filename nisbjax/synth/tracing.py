"""Skeletons of made-up neuropil, from its centre lines and the labels on disk.

One `networkx.Graph` for a cube with the attributes of NISB's `skeleton.pkl` (BANIS
`metrics.py` reads `id`, `index_position` and `nm_position`). NISB skeletonises its
labels; ours are known by construction and only moved into them.
"""

import networkx
import numpy as np
from jaxtyping import Int64

from nisbjax.geometry import Box, box_grid
from nisbjax.store.volume import Volume
from nisbjax.synth.tissue import Neurites
from nisbjax.typing import FloatTriple, Triple

_SNAP = 2  # voxels that a node may move to reach its own label


def skeleton_graph(
    neurites: Neurites,
    labelled: Box,
    labels: Volume,
    voxel_size_nm: FloatTriple,
    box_shape: Triple = (256, 256, 256),
) -> networkx.Graph:
    """NISB's skeletons: one graph, every node inside its own label.

    A sample outside its label (where a thin neurite bends, say) moves to
    the nearest voxel of its label within `_SNAP` voxels, or is left out; its neighbours
    along the neurite are then joined. Neurites left with fewer than two nodes have no
    skeleton.

    Args:
      neurites: of the cube.
      labelled: the part of the cube that holds labels; edges do not bridge its outside.
      labels: as written.
      voxel_size_nm: x y z.
      box_shape: how many labels are read at once.

    Returns:
      Nodes 0, 1, ... with `id`, `index_position` (voxel) and `nm_position` (index times
      voxel size); edges without attributes.
    """
    index = _place_nodes(neurites, labels, voxel_size_nm, box_shape)
    voxel = np.rint(neurites.position / voxel_size_nm)
    inside = np.all((voxel >= labelled.start) & (voxel < labelled.stop), axis=1)
    edges = _join_over_gaps(neurites.parent, index[:, 0] >= 0, inside)
    graph = networkx.Graph()
    used = np.unique(np.array(edges, np.int64))
    row = {int(sample): node for node, sample in enumerate(used)}
    for sample, node in row.items():
        position = index[sample].tolist()
        nm = [float(p * size) for p, size in zip(position, voxel_size_nm, strict=True)]
        identity = int(neurites.neurite[sample])
        graph.add_node(
            node, id=identity, index_position=tuple(position), nm_position=tuple(nm)
        )
    graph.add_edges_from((row[a], row[b]) for a, b in edges)
    return graph


def _place_nodes(
    neurites: Neurites, labels: Volume, voxel_size_nm: FloatTriple, box_shape: Triple
) -> Int64[np.ndarray, "n 3"]:
    """Voxel of each sample within its own label; -1 where there is none nearby."""
    voxel = np.rint(neurites.position / voxel_size_nm).astype(np.int64)
    placed = np.full_like(voxel, -1)
    moves = np.stack(
        np.meshgrid(*[np.arange(-_SNAP, _SNAP + 1)] * 3, indexing="ij"), axis=-1
    ).reshape(-1, 3)
    length = np.linalg.norm(moves * np.array(voxel_size_nm), axis=1)
    moves = moves[np.argsort(length, kind="stable")]
    for box in box_grid(labels.spatial_shape, box_shape):
        rows = np.flatnonzero(np.all((voxel >= box.start) & (voxel < box.stop), axis=1))
        if not len(rows):
            continue
        around = box.grow(_SNAP, _SNAP).clip(labels.spatial_shape)
        seen = labels.read(around)
        for move in moves:
            at = voxel[rows] + move
            valid = np.all((at >= around.start) & (at < around.stop), axis=1)
            rows_here, at = rows[valid], at[valid]
            own = seen[tuple((at - around.start).T)] == neurites.neurite[rows_here]
            placed[rows_here[own]] = at[own]
            rows = np.setdiff1d(rows, rows_here[own])
    return placed


def _join_over_gaps(parent, kept, inside) -> list[tuple[int, int]]:
    """Edges between kept samples, over left-out ones but not over ones outside."""
    nearest = np.full(len(parent), -1)  # kept sample that stands for this one
    edges = []
    for i in range(len(parent)):
        above = parent[i]
        if not kept[i]:
            if inside[i] and above >= 0:
                nearest[i] = nearest[above]
            continue
        nearest[i] = i
        if above >= 0 and nearest[above] >= 0:
            edges.append((int(nearest[above]), i))
        # A root that was left out is represented by its first kept descendant.
        while above >= 0 and inside[above] and nearest[above] < 0:
            nearest[above] = i
            above = parent[above]
    return edges
