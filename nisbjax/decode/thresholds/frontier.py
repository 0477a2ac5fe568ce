"""The nodes that have come and the faces that wait, joined at every threshold.

    box 0 | box 1 | box 2        box 0 comes: its face to box 1 waits
        node    |                box 1 comes: the two faces are joined and forgotten, its
                                 node and its face to box 2 stay

What is forgotten is contracted away: links between what can still be met stay, at the level
at which they join. So memory is that of a cross-section, however long the volume is, where
PyTC's tuner holds all labels of all thresholds in turn.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.thresholds import spanning

_ROOM = 1 << 16  # vertices that are not worth a contraction


@dataclasses.dataclass(frozen=True)
class BoxPart:
    """What of a box can still be met: the voxels of nodes and shared faces, as terminals.

    Attributes:
      foreground: highest level of an edge at each terminal.
      links: sources, targets (terminals) and levels of a forest over them.
      nodes: terminal of each node, and the nodes' rows.
      faces: terminals of a face's voxels, and the levels of the edges that are stored there
        for the voxels beyond it (or none), by (axis, 0 or -1).
    """

    foreground: UInt8[np.ndarray, " m"]
    links: tuple[Int[np.ndarray, " e"], Int[np.ndarray, " e"], UInt8[np.ndarray, " e"]]
    nodes: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]
    faces: dict[
        tuple[int, int], tuple[Int[np.ndarray, " f"], UInt8[np.ndarray, " f"] | None]
    ]


class Frontier:
    """The nodes that have come and the faces that wait, joined at every level."""

    def __init__(self, grid: BoxGrid, nodes: int, top: int):
        self._grid, self._top = grid, top
        self._parent, self._level = np.empty(0, np.uint32), np.empty(0, np.uint8)
        self._foreground = np.empty(0, np.uint8)
        self._nodes = np.full(nodes, -1, np.int64)
        self._faces: dict[tuple[int, int], tuple[np.ndarray, np.ndarray | None]] = {}
        self._kept = 0  # vertices after the last contraction

    def add(self, index: int, part: BoxPart) -> None:
        """Joins a box with those before it on each axis."""
        base = len(self._parent)
        count = len(part.foreground)
        own = np.arange(base, base + count)
        self._parent = np.append(self._parent, own.astype(np.uint32))
        self._level = np.append(self._level, np.zeros(count, np.uint8))
        self._foreground = np.append(self._foreground, part.foreground)
        sources, targets, levels = part.links
        self._insert(own[sources], own[targets], levels)
        self._nodes[part.rows] = own[part.nodes]
        for (axis, side), (terminals, levels) in part.faces.items():
            if side:
                self._faces[index, axis] = own[terminals], levels
                continue
            before = self._grid.neighbour(index, axis, -1)
            assert before is not None
            ids, levels_before = self._faces.pop((before, axis))
            levels = levels_before if levels is None else levels
            assert levels is not None
            for end in (ids, own[terminals]):
                self._foreground[end] = np.maximum(self._foreground[end], levels)
            self._insert(own[terminals], ids, levels)
        if len(self._parent) > 2 * self._kept + _ROOM:
            self._forget()

    def segments(self) -> UInt64[np.ndarray, "t n"]:
        """Segments of the nodes at each level, the lowest first."""
        found = np.zeros((self._top, len(self._nodes)), np.uint64)
        spanning.find_components(
            self._parent, self._level, self._foreground, self._nodes, found
        )
        return found

    def _insert(self, sources, targets, levels) -> None:
        spanning.insert_edges(self._parent, self._level, sources, targets, levels)

    def _held(self) -> Iterator[np.ndarray]:
        yield self._nodes[self._nodes >= 0]
        yield from (ids for ids, _ in self._faces.values())

    def _forget(self) -> None:
        """Contracts to what can still be met."""
        wanted = np.zeros(len(self._parent), bool)
        for ids in self._held():
            wanted[ids] = True
        kept = np.flatnonzero(wanted)
        links = contract_forest(self._parent, self._level, kept, self._top)
        self._parent = np.arange(len(kept), dtype=np.uint32)
        self._level = np.zeros(len(kept), np.uint8)
        self._foreground = self._foreground[kept]
        self._insert(*links)
        come = self._nodes >= 0
        self._nodes[come] = np.searchsorted(kept, self._nodes[come])
        self._faces = {
            key: (np.searchsorted(kept, ids), levels)
            for key, (ids, levels) in self._faces.items()
        }
        self._kept = len(kept)


def contract_forest(parent, level, vertices, top):
    """Sources, targets and levels of a forest over some vertices, by their order."""
    owner = np.full(len(parent), spanning.NONE)
    sources, targets = np.empty((2, len(vertices)), np.int64)
    levels = np.empty(len(vertices), np.uint8)
    count = spanning.contract(
        parent, level, vertices, top, owner, sources, targets, levels
    )
    # Copies, for the room is larger by far than what it holds in the end.
    return sources[:count].copy(), targets[:count].copy(), levels[:count].copy()
