"""The scratch folder: checksums, and what is made again."""

import numpy as np
import pytest
from absl import logging

from nisbjax.decode.streamed import scratch


def test_checksums():
    # crc32 of b"123456789" is the check value of the algorithm, cbf43926.
    values = np.frombuffer(b"123456789", np.uint8)
    assert scratch.checksum_of(values) == 0xCBF43926
    # In C order, whatever the strides.
    assert scratch.checksum_of(values.reshape(3, 3).T.copy().T) == 0xCBF43926


def test_a_file_is_sound_with_its_length_and_checksum(tmp_path):
    path = scratch.record_path(tmp_path, 7)
    assert path == tmp_path / "7.npz"
    assert not scratch.is_sound(tmp_path, 7, "9:cbf43926")
    path.write_bytes(b"123456789")
    assert scratch.checksum_of_file(path) == "9:cbf43926"
    assert scratch.is_sound(tmp_path, 7, "9:cbf43926")
    assert not scratch.is_sound(tmp_path, 7, None)
    path.write_bytes(b"123456780")
    assert not scratch.is_sound(tmp_path, 7, "9:cbf43926")


def test_labels_of_an_earlier_attempt_are_opened(tmp_path):
    folder = tmp_path / "scratch"
    scratch.open_labels(folder, (4, 4, 4), (2, 2, 2)).write(
        ..., np.full((4,) * 3, 5, np.uint32)
    )
    again = scratch.open_labels(folder, (4, 4, 4), (2, 2, 2))
    assert (again.read() == 5).all()


def test_damaged_metadata_begin_the_folder_again(tmp_path, caplog):
    folder = tmp_path / "scratch"
    scratch.open_labels(folder, (4, 4, 4), (2, 2, 2)).write(
        ..., np.full((4,) * 3, 5, np.uint32)
    )
    (folder / "0.npz").write_bytes(b"a record")
    (folder / "provisional.zarr" / ".zarray").write_text("{")
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        again = scratch.open_labels(folder, (4, 4, 4), (2, 2, 2))
    assert (
        "provisional.zarr is damaged; what lies beside it is made again" in caplog.text
    )
    assert (again.read() == 0).all()
    assert not (folder / "0.npz").exists()


def test_a_folder_that_cannot_be_made_is_no_damage(tmp_path):
    (tmp_path / "scratch").write_text("a file")
    with pytest.raises(FileExistsError):
        scratch.open_labels(tmp_path / "scratch", (4, 4, 4), (2, 2, 2))
