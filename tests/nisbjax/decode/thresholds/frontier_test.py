"""Three boxes in a row: faces wait, are joined and forgotten; nodes stay."""

import numpy as np

from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.thresholds import frontier
from nisbjax.decode.thresholds.frontier import BoxPart, Frontier, contract_forest

GRID = BoxGrid((3, 1, 1), (1, 1, 1))  # a voxel each, along x
NONE = (np.empty(0, int), np.empty(0, int), np.empty(0, np.uint8))


def part_of(index, node, crossing):
    """A box of one voxel, with its edge to the next one, stored at its source."""
    faces = {}
    if index > 0:
        faces[0, 0] = np.array([0]), None
    if index < 2:
        faces[0, -1] = np.array([0]), np.array([crossing], np.uint8)
    nodes = np.array([0] if node is not None else [], int)
    rows = np.array([node] if node is not None else [], int)
    return BoxPart(np.array([0], np.uint8), NONE, nodes, rows, faces)


def test_nodes_are_joined_where_the_weakest_edge_between_them_lies():
    # Voxel 0 -2- 1 -1- 2: nodes at 0 and 2 are one at level 1, and apart at level 2.
    found = Frontier(GRID, nodes=2, top=3)
    for index, (node, crossing) in enumerate([(1, 2), (None, 1), (0, 0)]):
        found.add(index, part_of(index, node, crossing))
    # Rows are levels 1 to 3, columns the nodes: node 0 at voxel 2, node 1 at voxel 0.
    segments = found.segments()
    assert segments[0, 0] == segments[0, 1] > 0
    # At level 2 voxel 2 has no edge any more; voxel 0 has its edge to voxel 1.
    assert segments[1, 0] == 0 < segments[1, 1]
    assert segments[2].tolist() == [0, 0]


def test_what_is_forgotten_changes_no_segment(monkeypatch):
    monkeypatch.setattr(frontier, "_ROOM", 0)
    parts = [part_of(0, 1, 2), part_of(1, None, 1), part_of(2, 0, 0)]
    found = Frontier(GRID, nodes=2, top=3)
    found.add(0, parts[0])
    assert len(found._faces) == 1  # that of box 0 waits
    found.add(1, parts[1])
    assert list(found._faces) == [(1, 0)]
    # The node of voxel 0 and the waiting face of voxel 1, which is voxel 1 itself.
    assert len(found._parent) == 2
    found.add(2, parts[2])
    assert not found._faces
    segments = found.segments()
    assert segments[0, 0] == segments[0, 1] > 0
    assert segments[1, 0] == 0 < segments[1, 1]


def test_a_path_is_contracted_to_its_ends():
    # 0 -3- 1 -1- 2 -2- 3: between 0 and 3 the weakest link counts.
    parent = np.array([0, 0, 1, 2], np.uint32)
    level = np.array([0, 3, 1, 2], np.uint8)
    sources, targets, levels = contract_forest(parent, level, np.array([0, 3]), 3)
    assert (sources.tolist(), targets.tolist(), levels.tolist()) == ([1], [0], [1])
