"""Blosc2 arrays; python-blosc2 writes these files itself, as nothing else here does."""

import pickle
import sys

import blosc2
import numpy as np
import pytest
from small_volumes import VALUES

from nisbjax.errors import InputError
from nisbjax.store.volume import open_labels, open_volume


def write(path, values=VALUES, **words):
    array = blosc2.asarray(
        values, urlpath=str(path), mode="w", chunks=(4,) * values.ndim
    )
    for name, value in words.items():
        array.schunk.vlmeta[name] = value
    return path


def test_values_attributes_and_workers(tmp_path):
    path = write(tmp_path / "a.b2nd", note="mine", spacing=[30.0, 9.0, 8.0])
    volume = open_labels(path)
    np.testing.assert_array_equal(volume.read(), VALUES)
    assert volume.chunks == (4, 4, 4)
    assert volume.attributes == {"note": "mine", "spacing": [30, 9, 8]}
    store = pickle.loads(pickle.dumps(volume.store))
    np.testing.assert_array_equal(store[1:4, :, 6].read().result(), VALUES[1:4, :, 6])
    path = write(tmp_path / "b.b2nd", axes=["z", "y", "x"])
    np.testing.assert_array_equal(open_labels(path).read(), VALUES.transpose())


def test_what_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "a.b2nd"
    path.write_bytes(b"no array" * 100)
    with pytest.raises(InputError, match="a.b2nd cannot be read as a Blosc2 array"):
        open_volume(path)
    noise = np.random.default_rng(0).integers(0, 60_000, (8, 8, 8)).astype(np.uint16)
    write(path, noise)
    content = path.read_bytes()
    path.write_bytes(content[:300] + b"\xff" * 600 + content[900:])
    with pytest.raises(InputError, match="a.b2nd (is damaged: the box|cannot be read)"):
        open_volume(path).read()
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(
        InputError, match=r"needs blosc2; pip install 'nisbjax\[blosc2\]'"
    ):
        open_volume(write_nothing(tmp_path / "c.b2nd"))


def write_nothing(path):
    path.write_bytes(b"x")
    return path
