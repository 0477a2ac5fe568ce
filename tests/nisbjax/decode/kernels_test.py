"""The forest of runs, on the row that the kernel's docstring draws."""

import numpy as np
import pytest

from nisbjax.decode import kernels
from nisbjax.decode.kernels import Forest, PlaneValues, Rule

#        voxel     0  1  2  3  4  5  6  7
JOINED_BEFORE = [0, 1, 0, 1, 1, 1, 1, 1]  # runs begin at 0 and 2
JOINED = [0, 1, 1, 0, 0, 1, 1, 1]  # at 0, 3 and 4
BETWEEN = [1, 1, 0, 0, 0, 1, 1, 0]  # edges on y


def bits(words):
    """The voxels whose bit is set, of a row of fewer than 65."""
    return [z for z in range(64) if int(words[0]) >> z & 1]


def forest_of(*, x=None, y, z, mask=None, destination=True, both=True):
    """The forest over one plane of two rows, edges stored as affinities 0 and 1."""
    shape = (1, *np.shape(y))
    planes = [np.zeros(shape, np.uint16) if p is None else p for p in (x, y, z)]
    planes = [np.asarray(p, np.uint16).reshape(shape) for p in planes]
    masked = mask is not None
    mask = (
        np.asarray(mask, np.uint8).reshape(shape)
        if masked
        else np.empty((0, 0, 0), np.uint8)
    )
    for array in (*planes, mask):
        array.flags.writeable = False
    rule = Rule(np.uint16(0), np.uint16(9), destination, masked, both)
    forest = Forest.over(np.zeros(shape, np.uint32))
    carried = np.zeros((3, *forest.joined.shape[1:]), np.uint64)
    kernels.unite_planes(PlaneValues(*planes, mask), rule, 0, False, forest, carried)
    return forest


def test_the_worked_row_of_the_docstring():
    # Stored at the voxel behind each edge; the first row has none on y.
    forest = forest_of(y=[[0] * 8, BETWEEN], z=[JOINED_BEFORE, JOINED])
    assert bits(forest.joined[0, 0]) == [1, 3, 4, 5, 6, 7]
    assert bits(forest.joined[0, 1]) == [1, 2, 5, 6, 7]
    parent = forest.parent.tolist()
    # Row 0 begins at 0, row 1 at 8. Run 0 of row 1 hangs at run 0, run 4 at run 2; run 3
    # has no edge and stays alone.
    assert [parent[v] for v in (0, 2, 8, 11, 12)] == [0, 2, 0, 11, 2]
    # Voxel 3 of row 1 touches no edge.
    assert bits(forest.foreground[0, 1]) == [0, 1, 2, 4, 5, 6, 7]
    assert bits(forest.foreground[0, 0]) == list(range(8))


def test_the_same_edges_stored_at_their_source_make_the_same_forest():
    behind = forest_of(y=[[0] * 8, BETWEEN], z=[JOINED_BEFORE, JOINED])
    at_source = forest_of(
        y=[BETWEEN, [0] * 8],
        z=[[*JOINED_BEFORE[1:], 0], [*JOINED[1:], 0]],
        destination=False,
    )
    assert at_source.parent.tolist() == behind.parent.tolist()
    assert at_source.joined.tolist() == behind.joined.tolist()
    assert at_source.foreground.tolist() == behind.foreground.tolist()


@pytest.mark.parametrize(("both", "joined"), [(True, [1]), (False, [1, 2])])
def test_a_mask_takes_edges_at_one_end_or_at_both(both, joined):
    # Voxel 2 is masked. Stored at the source, edge 1-2 lies at voxel 1, edge 2-3 at 2.
    forest = forest_of(
        y=[[0, 0, 0, 0]],
        z=[[1, 1, 1, 0]],
        mask=[[1, 1, 0, 1]],
        destination=False,
        both=both,
    )
    assert bits(forest.joined[0, 0]) == joined


def test_an_edge_that_leaves_the_volume_makes_foreground_alone():
    forest = forest_of(y=[[0, 0]], z=[[0, 1]], destination=False)
    assert bits(forest.joined[0, 0]) == []
    assert bits(forest.foreground[0, 0]) == [1]


def test_a_seam_attaches_the_later_root_and_says_so():
    """Two planes of one row; edges on x at voxels 0, 1 and 3, runs 0-1, 2, 3."""
    forest = Forest.over(np.zeros((2, 1, 4), np.uint32))
    z = np.array([[[1, 0, 0, 0]]], np.uint16)  # voxel 0 is joined to voxel 1
    none = np.zeros((1, 1, 4), np.uint16)
    kept = np.empty((0, 0, 0), np.uint8)
    for array in (z, none, kept):
        array.flags.writeable = False
    rule = Rule(np.uint16(0), np.uint16(9), False, False, True)
    carried = np.zeros((3, 1, 1), np.uint64)
    for plane in (0, 1):
        planes = PlaneValues(none, none, z, kept)
        kernels.unite_planes(planes, rule, plane, False, forest, carried)
    between = np.array([[1, 1, 0, 1]], np.uint16)
    empty = np.empty((0, 4), np.uint8)
    attached = np.empty(4, np.uint32)
    for array in (between, empty):
        array.flags.writeable = False
    count = kernels.join_seam(between, empty, empty, rule, 1, forest, attached)
    # Runs of plane 1 begin at 4 (two voxels), 6 and 7. Edge 1 closes a square.
    assert attached[:count].tolist() == [4, 7]
    assert [int(forest.parent[v]) for v in (4, 6, 7)] == [0, 6, 3]
