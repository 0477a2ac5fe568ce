"""Numbers of segments: the two boxes that the docstring draws."""

import numpy as np

from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.streamed.label_tables import LabelTables
from nisbjax.decode.streamed.scratch import table_path
from nisbjax.decode.streamed.seams import Seams


def drawn():
    """A A | . B     . . | . B     . C | C C     . . | D D, by rows x y."""
    affinities = np.zeros((3, 2, 2, 4), np.float32)
    affinities[2, 0, 0, 0] = 1  # A
    affinities[1, 0, 0, 3] = 1  # B, over two rows
    affinities[2, 1, 0, 1:3] = 1  # C, over the seam
    affinities[2, 1, 1, 2] = 1  # D
    return affinities


def written(decoder, min_size=0):
    seams = Seams(decoder.folder, decoder.grid, 0)
    seams.join()
    counts = LabelTables(seams, min_size).write()
    paths = (table_path(decoder.folder, index) for index in (0, 1))
    return counts, [np.load(path).tolist() for path in paths]


def test_the_worked_boxes_of_the_docstring(decoded):
    decoder = decoded(drawn(), (2, 2, 2))
    counts, tables = written(decoder)
    rows = [np.load(decoder.folder / f"{index}.rows.npy").tolist() for index in (0, 1)]
    assert rows == [[[0, 2], [2, 3]], [[1, 2], [3, 3]]]
    assert tables == [[0, 1, 3], [0, 2, 3, 4]]
    # A, B and D have two voxels, C has three.
    assert (counts.segments, counts.labelled, counts.largest) == (4, 9, 3)
    assert counts.voxels == 16
    # The whole volume, decoded at once, has the same labels.
    labels = label_affinities(drawn(), 0.5)
    assert labels[0, 0].tolist() == [1, 1, 0, 2]
    assert labels[1].tolist() == [[0, 3, 3, 3], [0, 0, 4, 4]]


def test_small_segments_get_no_number(decoded):
    counts, tables = written(decoded(drawn(), (2, 2, 2)), min_size=3)
    assert tables == [[0, 0, 1], [0, 0, 1, 0]]  # C alone
    assert (counts.segments, counts.labelled) == (1, 3)


def test_an_orphan_comes_behind_the_labels_of_its_box(decoded, row_of_six):
    # Boxes of three: 0-1-2 ends in box 0; box 1 has 4-5 as its label 1.
    affinities = row_of_six.copy()
    affinities[0, 2] = 1  # voxel 3 joins 0-1-2 over the seam, and is an orphan of box 1
    decoder = decoded(affinities, (3, 1, 1))
    _, tables = written(decoder)
    assert tables == [[0, 1], [0, 2, 1]]


def test_written_again_they_are_the_same(decoded):
    decoder = decoded(drawn(), (2, 2, 2))
    assert written(decoder) == written(decoder)
