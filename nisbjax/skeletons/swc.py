"""SWC: a text file for each neurite, a line for each node with its parent.

    id type x y z radius parent        parent -1 of a root; # begins a comment

(Cannon et al. 1998, doi 10.1016/S0165-0270(98)00091-0). The format has no word for its
unit, and programs take nm, um or voxels for granted; here it is nm unless the path says
another (`axon.swc#um`), and nm that cannot be are refused.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from nisbjax.errors import InputError
from nisbjax.skeletons.arrays import Skeletons, voxels_of
from nisbjax.store import files
from nisbjax.typing import FloatTriple

UNITS = ("nm", "um", "voxels")
_COLUMNS = 7
_LEAST_EDGE = 0.5  # voxels; the median edge of nm that are none is far shorter
_LARGEST = 1e12  # nm


def read(
    neurites: Sequence[tuple[int, Path]],
    voxel_size_nm: FloatTriple,
    unit: str,
    max_nodes: int,
) -> Skeletons:
    """Neurites of several files, in that order; nodes in the order of their lines.

    Args:
      neurites: the id of each, and its file.
      voxel_size_nm: x y z, by which positions become voxels.
      unit: of `UNITS`; "" for nm, if that can be.
      max_nodes: refuse more.

    Raises:
      InputError: naming file and line: columns that are no numbers, positions that are not
        finite, an id that comes twice, a parent that is not there, parents in a circle; or
        a file without a node, too many of them, or edges far shorter than a voxel.
    """
    scale = np.asarray(tuple(voxel_size_nm), float) if unit == "voxels" else 1.0
    scale = 1000.0 if unit == "um" else scale
    identities, positions, edges = [], [], []
    count = 0
    for identity, path in neurites:
        position, parents = _parse(path, max_nodes - count)
        position *= scale
        if np.abs(position).max() > _LARGEST:
            raise InputError(
                f"{path} has positions beyond {_LARGEST:g} nm; wanted those of a volume"
            )
        identities.append(np.full(len(position), identity, np.int64))
        positions.append(position)
        children = np.flatnonzero(parents >= 0)
        edges.append(np.stack([parents[children], children], axis=1) + count)
        count += len(position)
    position_nm, pairs = np.concatenate(positions), np.concatenate(edges)
    first = neurites[0][1]
    source = str(first if len(neurites) == 1 else first.parent)
    if unit == "":
        _require_nm(source, position_nm, pairs, voxel_size_nm)
    index = voxels_of(position_nm, voxel_size_nm)
    return Skeletons(
        np.concatenate(identities), index, position_nm, pairs, source, placed=True
    )


def write(skeletons: Skeletons, folder: str | os.PathLike) -> None:
    """Writes `<id>.swc` for each id into a folder, positions in nm, radii 0.

    Args:
      skeletons: without loops, which SWC cannot hold.
      folder: made if missing; its other files stay.

    Raises:
      InputError: loops.
    """
    # A tenth of a second to import, and nobody who reads needs it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    count = len(skeletons.node_id)
    a, b = skeletons.edges.T
    graph = coo_array((np.ones(len(a)), (a, b)), (count, count)).tocsr()
    pieces, piece = connected_components(graph, directed=False)
    if len(a) != count - pieces:
        raise InputError(
            f"{skeletons.source} has loops ({len(a)} edges of {count} nodes in {pieces} "
            "pieces), which SWC cannot hold; write skeleton.pkl"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # One node more, below which all roots are, so that one traversal comes to all pieces.
    _, roots = np.unique(piece, return_index=True)
    a, b = np.append(a, np.full(pieces, count)), np.append(b, roots)
    graph = coo_array((np.ones(len(a)), (a, b)), (count + 1, count + 1)).tocsr()
    order, parent = breadth_first_order(graph, count, directed=False)
    order = order[1:]
    order = order[np.lexsort((piece[order], skeletons.node_id[order]))]
    identity = skeletons.node_id[order]
    ids, first, counts = np.unique(identity, return_index=True, return_counts=True)
    number = np.zeros(count + 1, np.int64)
    number[order] = np.arange(1, count + 1) - np.repeat(first, counts)
    above = parent[order]
    same = above < count
    same[same] = skeletons.node_id[above[same]] == identity[same]
    above = np.where(same, number[above], -1)
    position = skeletons.position_nm[order]
    for one, begin, nodes in zip(
        ids.tolist(), first.tolist(), counts.tolist(), strict=True
    ):
        own = slice(begin, begin + nodes)
        lines = [f"# positions in nm, of {skeletons.source}"]
        rows = zip(position[own].tolist(), above[own].tolist(), strict=True)
        for node, ((x, y, z), parent_node) in enumerate(rows, 1):
            lines.append(f"{node} 0 {x:.10g} {y:.10g} {z:.10g} 0 {parent_node}")
        files.write_text(folder / f"{one}.swc", "\n".join(lines) + "\n")


def _parse(
    path: Path, most: int
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, " n"]]:
    """Positions as they stand, and the row of each node's parent, -1 for none."""
    lines: list[int] = []
    names: list[int] = []
    above: list[int] = []
    positions: list[tuple[float, float, float]] = []
    with open(path, encoding="utf-8", errors="replace") as opened:
        for number, line in enumerate(opened, 1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            name, place, parent = _node(words, f"{path}, line {number}")
            names.append(name)
            positions.append(place)
            above.append(parent)
            lines.append(number)
            if len(names) > most:
                raise InputError(f"{path} goes beyond the limit of nodes; divide it")
    if not names:
        raise InputError(f"{path} has no node; wanted lines of id type x y z r parent")
    row = {name: i for i, name in enumerate(names)}
    if len(row) < len(names):
        seen: set[int] = set()
        for name, number in zip(names, lines, strict=True):
            if name in seen:
                raise InputError(f"{path}, line {number}: node {name} is there twice")
            seen.add(name)
    for name, number in zip(above, lines, strict=True):
        if name >= 0 and name not in row:
            raise InputError(
                f"{path}, line {number}: its parent is node {name}, which there is none "
                "of; wanted that of a line, or -1"
            )
    parents = np.array([row[name] if name >= 0 else -1 for name in above], np.int64)
    lost = _without_root(parents)
    if len(lost):
        raise InputError(
            f"{path}, line {lines[lost[0]]}: node {names[lost[0]]} has no root, its "
            "parents go round in a circle; wanted a tree"
        )
    return np.array(positions, np.float64).reshape(-1, 3), parents


def _node(words: list[str], where: str) -> tuple[int, tuple[float, float, float], int]:
    """Id, position and parent (-1 for none) of a line."""
    if len(words) < _COLUMNS:
        raise InputError(
            f"{where}: {len(words)} columns; wanted id type x y z radius parent"
        )
    try:
        name, parent = int(words[0]), int(words[6])
        x, y, z, _ = map(float, words[2:6])
    except (ValueError, OverflowError):
        raise InputError(
            f"{where}: {' '.join(words)[:60]!r} is not id type x y z radius parent in "
            "numbers"
        ) from None
    if not all(map(math.isfinite, (x, y, z))):
        raise InputError(f"{where}: the position is {x} {y} {z}; wanted finite numbers")
    if name < 0:
        raise InputError(f"{where}: the node is {name}; wanted 0 or more")
    return name, (x, y, z), max(parent, -1)


def _without_root(parents: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Rows from which no way along the parents ends, ascending."""
    # Each step doubles how far it looks: a root stays where it is, a circle never ends.
    ahead = parents.copy()
    for _ in range(len(parents).bit_length()):
        going = np.flatnonzero(ahead >= 0)
        if not len(going):
            break
        ahead[going] = ahead[ahead[going]]
    return np.flatnonzero(ahead >= 0)


def _require_nm(
    source: str,
    position_nm: Float64[np.ndarray, "n 3"],
    edges: Int64[np.ndarray, "e 2"],
    voxel_size_nm: FloatTriple,
) -> None:
    """Refuses positions that nobody called nm and whose edges are far too short for it."""
    if not len(edges):
        return
    ends = position_nm[edges]
    typical = float(np.median(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)))
    if typical < _LEAST_EDGE * min(voxel_size_nm):
        raise InputError(
            f"{source}: half of its edges are shorter than {typical:.3g}, which as nm is "
            f"{typical / min(voxel_size_nm):.2g} voxels; say the unit of its positions "
            "behind the path, #um, #voxels or #nm"
        )
