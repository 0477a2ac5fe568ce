"""What one box leaves: labels of its own, faces, and the edges that cross them."""

import numpy as np
import pytest

from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.boxes import BoxRecord, crossing, save
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.streamed.scratch import checksum_of, checksum_of_file, record_path
from nisbjax.geometry import Box


def test_a_box_is_labelled_alone(decoder_of, row_of_six):
    decoder = decoder_of(row_of_six, (2, 1, 1))
    facts = [decoder(index) for index in range(3)]
    # Voxels 0-1 and 4-5; 2 hangs at 1 by an edge that box 0 holds.
    assert decoder.provisional.read().ravel().tolist() == [1, 1, 0, 0, 1, 1]
    assert [f["count"] for f in facts] == [1, 0, 1]
    path = record_path(decoder.folder, 0)
    assert facts[0]["record"] == checksum_of_file(path)
    record = BoxRecord(decoder.folder, decoder.grid, 0)
    assert record.checksum == checksum_of(np.ones((2, 1, 1), np.uint32))
    assert record.edges(0).tolist() == [[True]]  # 1-2
    assert record.face(0, -1).tolist() == [[1]]
    assert record.size.tolist() == [0, 2]
    assert record.first[1] == 0
    after = BoxRecord(decoder.folder, decoder.grid, 1)
    assert after.edges(0).tolist() == [[False]]  # no 3-4
    with pytest.raises(KeyError):
        record.face(0, 0)  # the volume ends there


def test_orphans_have_the_labels_behind_those_of_the_box(decoder_of, row_of_six):
    decoder = decoder_of(row_of_six, (2, 1, 1))
    decoder(1)
    record = BoxRecord(decoder.folder, decoder.grid, 1)
    where = np.array([[True]])
    assert record.positions(0, 0, where).tolist() == [0]
    record.set_orphans(np.array([0]))
    # The box has no segment, so its first orphan is label 1 (0 is background).
    again = BoxRecord(decoder.folder, decoder.grid, 1)
    assert again.orphans.tolist() == [0]
    assert again.labels(0, 0, where).tolist() == [1]
    again.set_orphans(np.empty(0, int))
    assert len(BoxRecord(decoder.folder, decoder.grid, 1).orphans) == 0


@pytest.mark.parametrize(
    "edge_offset, mask_edges, masked, expected",
    [
        (0, "both", None, 0.9),
        (0, "both", 1, 0),  # voxel 1 holds 1-2
        (0, "both", 2, 0),  # its other voxel
        (0, "source", 2, 0.9),
        (0, "source", 1, 0),
        (1, "both", 1, 0),
        (1, "source", 1, 0.9),  # voxel 2 holds it
        (1, "source", 2, 0),
    ],
)
def test_a_mask_takes_edges_that_cross(edge_offset, mask_edges, masked, expected):
    values = np.zeros((3, 2, 1, 1), np.float32)
    holder = (
        1 if edge_offset else 0
    )  # box of two voxels, of which this one is at the seam
    values[0, 0 if holder else 1] = 0.9
    mask = np.ones((4, 1, 1), bool)
    if masked is not None:
        mask[masked] = False
    edges = MaskedEdges(edge_offset, mask, mask_edges=mask_edges)
    faces = crossing(values, BoxGrid((4, 1, 1), (2, 1, 1)), holder, edges)
    assert list(faces) == [0]
    assert faces[0].view(np.float32).item() == np.float32(expected)
    # The box itself is told the same.
    assert values[0].max() == np.float32(expected)


def test_a_record_is_written_whole(tmp_path):
    save(tmp_path / "0.npz", {"a": np.arange(3)}, durable=True)
    assert np.load(tmp_path / "0.npz")["a"].tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["0.npz"]


def test_the_mask_of_a_box_is_that_of_the_volume(decoder_of):
    """One segment along x in each of two rows; the mask cuts the second row at x = 3."""
    affinities = np.zeros((3, 5, 2, 1), np.float32)
    affinities[0, :4] = 1
    mask = np.ones((5, 2, 1), bool)
    mask[3, 1] = False
    decoder = decoder_of(affinities, (3, 2, 1), MaskedEdges(mask=mask))
    decoder(0)
    decoder(1)
    labels = decoder.provisional.read()[..., 0].T.tolist()
    # Box 1 is x = 3 and 4: row 0 is joined there, row 1 is not.
    assert labels == [[1, 1, 1, 1, 1], [2, 2, 2, 0, 0]]
    assert Box.parse("3:5,0:2,0:1") == decoder.grid.boxes[1]
