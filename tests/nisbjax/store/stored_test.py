"""Sizes and checksums of files, and of what is no file."""

import os

import numpy as np

from nisbjax.geometry import Box
from nisbjax.store import stored
from nisbjax.store.volume import create_zarr


def test_a_file_none_and_another_thing(tmp_path):
    # The check value of CRC-32, by its definition.
    fact = (9, 0xCBF43926)
    (tmp_path / "a").write_bytes(b"123456789")
    assert stored.of_bytes(b"123456789") == stored.of_file(tmp_path / "a") == fact
    assert stored.size_of(tmp_path / "a") == 9
    assert stored.of_file(tmp_path / "b") is stored.size_of(tmp_path / "b") is None
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert stored.of_file(path) == stored.NO_FILE
        assert stored.size_of(path) == stored.NO_FILE[0]


def test_a_box_names_the_chunks_that_it_holds_whole(tmp_path):
    path = tmp_path / "a.zarr"
    keys = {"shape": (4, 4, 6), "dtype": "uint8", "chunks": (4, 4, 2), "axes": "xyz"}
    array = create_zarr(path, **keys)
    array.write(Box((0, 0, 0), (4, 4, 2)), np.ones((4, 4, 2), np.uint8))
    # z 0 to 5 holds the chunks 0 and 1, and half of 2; 1 was never written.
    found = array.chunk_facts(Box((0, 0, 0), (4, 4, 5)), path)
    assert found == {"0.0.0": stored.of_file(path / "0.0.0"), "0.0.1": None}
    assert list(array.chunk_facts(..., tmp_path))[2] == "a.zarr/0.0.2"
