"""Final labels of one box, and what is compared before they are written."""

import numpy as np
import pytest
from absl import logging

from nisbjax.decode.streamed.label_tables import LabelTables
from nisbjax.decode.streamed.relabeling import LabelCheck, Relabeler
from nisbjax.decode.streamed.scratch import checksum_of, table_path
from nisbjax.decode.streamed.seams import Seams
from nisbjax.errors import InputError
from nisbjax.store.volume import from_array


@pytest.fixture
def relabeler(decoded, row_of_six):
    """Of the six voxels 1 1 | 0 0 | 1 1, of which voxel 2 is an orphan of segment 1."""
    decoder = decoded(row_of_six, (2, 1, 1))
    seams = Seams(decoder.folder, decoder.grid, 0)
    seams.join()
    LabelTables(seams, 0).write()
    return Relabeler(decoder, from_array(np.zeros((6, 1, 1), np.uint64), "xyz"))


def test_labels_and_orphans_get_their_final_numbers(relabeler):
    facts = [relabeler(index) for index in range(3)]
    assert relabeler.output.read().ravel().tolist() == [1, 1, 1, 0, 2, 2]
    parts = np.array([[1, 1], [1, 0], [2, 2]], np.uint64)
    assert [f["labels"] for f in facts] == [checksum_of(part) for part in parts]


def test_other_labels_than_recorded_are_decoded_again(relabeler, caplog):
    box = relabeler.decoder.grid.boxes[0]
    relabeler.decoder.provisional.write(box, np.full((2, 1, 1), 77, np.uint32))
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        relabeler(0)
    assert "labels of box 0:2,0:1,0:1 of an earlier attempt" in caplog.text
    assert relabeler.output.read().ravel().tolist()[:2] == [1, 1]


def test_a_table_too_short_for_its_record_is_refused(relabeler):
    table = np.load(table_path(relabeler.decoder.folder, 0))
    np.save(table_path(relabeler.decoder.folder, 0), table[:1])
    with pytest.raises(InputError, match="0:2,0:1,0:1 has labels beyond the 0 of its"):
        relabeler(0)


def test_the_output_is_checked_by_its_values(relabeler):
    check = LabelCheck(relabeler.output, relabeler.decoder.grid)
    zeros = np.zeros(2, np.uint64)
    assert check(0) == checksum_of(zeros)
    relabeler(0)
    assert check(0) == checksum_of(np.ones(2, np.uint64))
