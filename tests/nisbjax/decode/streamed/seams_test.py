"""Seams between boxes: the row that the docstring draws, stored at either end."""

import numpy as np
import pytest

from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.seams import Seams


def joined(decoder):
    seams = Seams(decoder.folder, decoder.grid, decoder.edges.edge_offset)
    seams.join()
    return seams


def test_the_worked_row_of_the_docstring(decoded, row_of_six):
    seams = joined(decoded(row_of_six, (2, 1, 1)))
    assert seams.layers() == [[0], [1], [2]]
    # Labels 0..N and orphans of each box: N is 1, 0 and 1, and box 1 has one orphan.
    assert [len(seams.record(i).first) for i in range(3)] == [2, 1, 2]
    assert [seams.record(i).orphans.tolist() for i in range(3)] == [[], [0], []]
    assert np.load(seams.tree.crossing(0)).tolist() == [[1], [1]]
    assert np.load(seams.tree.crossing(1)).tolist() == [[], []]
    leaves = [seams.tree.load(0, k) for k in range(3)]
    assert [leaf["keys"].tolist() for leaf in leaves] == [[1], [1], []]
    assert [leaf["first"].tolist() for leaf in leaves] == [[0], [0], []]
    assert [leaf["size"].tolist() for leaf in leaves] == [[3], [3], []]


def test_stored_at_the_destination_the_other_box_has_the_orphan(decoded, row_of_six):
    """Voxel 2 holds 1-2; with no edge 0-1, voxel 1 has none in its own box."""
    affinities = np.roll(row_of_six, 1, axis=1)
    affinities[0, 1] = 0
    seams = joined(decoded(affinities, (2, 1, 1), MaskedEdges(1)))
    # Index 1 of box 0 is voxel 1.
    assert [seams.record(i).orphans.tolist() for i in range(3)] == [[1], [], []]
    leaves = [seams.tree.load(0, k) for k in range(3)]
    assert [leaf["first"].tolist() for leaf in leaves] == [[1], [1], []]
    assert [leaf["size"].tolist() for leaf in leaves] == [[2], [2], []]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layers_lie_across_the_axis_of_most_boxes(tmp_path, axis):
    from nisbjax.decode.streamed.grid import BoxGrid

    shape = [2, 2, 2]
    shape[axis] = 6
    seams = Seams(tmp_path, BoxGrid(tuple(shape), (2, 2, 1)), 0)
    # Boxes of 2 x 2 x 1: along z there are 2, or 6 where z is the long axis.
    layers = {0: [[0, 1], [2, 3], [4, 5]], 1: [[0, 1], [2, 3], [4, 5]]}
    assert seams.layers() == layers.get(axis, [[0], [1], [2], [3], [4], [5]])


def test_keys_count_the_labels_of_the_boxes_before(decoded):
    """Two boxes across y in one layer, of one label each: labels 0 and 1 take two keys."""
    affinities = np.zeros((3, 4, 2, 1), np.float32)
    affinities[0, [0, 2]] = 1  # in each of 2 x 2 boxes, one segment of two voxels
    affinities[1, 0, 0] = 1  # joins the two boxes at low x
    seams = joined(decoded(affinities, (2, 1, 1)))
    assert seams.layers() == [[0, 1], [2, 3]]
    assert seams.starts([0, 1]) == {0: 0, 1: 2}
    # Labels 1 and 1 of boxes 0 and 1 are the keys 1 and 3, one component of 4 voxels.
    leaf = seams.tree.load(0, 0)
    assert leaf["keys"].tolist() == [1, 3]
    assert leaf["component"].tolist() == [0, 0]
    assert (leaf["first"].tolist(), leaf["size"].tolist()) == ([0], [4])
