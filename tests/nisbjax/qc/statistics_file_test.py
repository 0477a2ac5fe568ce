"""Statistics come back as they were, for exactly what they are of, or not at all."""

import os

import numpy as np
import pytest

from nisbjax.qc import statistics
from nisbjax.qc.border import find_border
from nisbjax.qc.statistics_file import load, save
from nisbjax.store.volume import from_array


def test_statistics_come_back_for_their_own_prediction_alone(tmp_path):
    draw = np.random.default_rng(4)
    values = draw.random((2, 6, 6, 5)).astype(np.float16)
    image = draw.integers(0, 60, (6, 6, 5, 1), np.uint8)
    border = find_border(from_array(image, "xyzc"), n_z_border=2, width=1, thresh=30.0)
    made = statistics.scan(from_array(values, "cxyz"), border)
    save(made, tmp_path / "planes.npz", "this one")
    assert load(tmp_path / "planes.npz", "another") is None
    assert load(tmp_path / "nothing.npz", "this one") is None
    again = load(tmp_path / "planes.npz", "this one")
    np.testing.assert_array_equal(again.planes.total, made.planes.total)
    np.testing.assert_array_equal(again.planes.low, made.planes.low)
    assert again.border.z == border.z and again.shape == (6, 6, 5)
    for mine, theirs in zip(again.samples.ring[1], made.samples.ring[1], strict=True):
        np.testing.assert_array_equal(mine.values, theirs.settle().values)
        np.testing.assert_array_equal(mine.counts, theirs.counts)
    np.testing.assert_array_equal(again.pictures, made.pictures)


@pytest.mark.parametrize("damage", [b"", b"5\n", b"PK\x03\x04 not a zip", None])
def test_damaged_statistics_are_not_used(tmp_path, damage, caplog):
    values = np.zeros((1, 2, 2, 2), np.float16)
    made = statistics.scan(from_array(values, "cxyz"))
    path = tmp_path / "planes.npz"
    save(made, path, "this one")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert load(path, "this one") is None
    assert "is damaged" in caplog.text
    assert "allow_pickle" not in caplog.text  # numpy's advice on what it does not know


def test_a_pipe_in_their_place_is_not_waited_for(tmp_path, caplog):
    os.mkfifo(tmp_path / "planes.npz")
    assert load(tmp_path / "planes.npz", "this one") is None
    assert "is a device, pipe or socket; wanted a file" in caplog.text


@pytest.mark.parametrize("facts", ["5", "null", "[]", '{"made_from": 1}', "{"])
def test_statistics_with_other_facts_are_not_used(tmp_path, facts, caplog):
    path = tmp_path / "planes.npz"
    np.savez(path, facts=np.array(facts))
    assert load(path, "this one") is None
    assert "is damaged" in caplog.text
