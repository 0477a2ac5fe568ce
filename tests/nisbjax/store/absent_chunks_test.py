"""Chunks that another program's array lacks are counted, under every kind of name."""

import os

import numpy as np
import pytest
import tensorstore as ts
import zarr

from nisbjax.errors import InputError
from nisbjax.store import absent_chunks, zarr_folder
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import create_zarr, from_array, open_volume

NAMES = {  # of one chunk
    ("v2", ".", 2): "1.0.1",
    ("v2", "/", 2): "1/0/1",
    ("v2", ".", 3): "1.0.1",
    ("default", "/", 3): "c/1/0/1",
    ("default", ".", 3): "c.1.0.1",
}


@pytest.fixture(params=NAMES, ids=lambda kind: f"{kind[0]} {kind[1]} v{kind[2]}")
def array(request, tmp_path):
    """An array of 2 x 2 x 2 chunks, and the path of one of them."""
    kind, separator, version = request.param
    values = np.ones((3, 4, 4), np.float32)
    zarr.create_array(
        str(tmp_path / "a"),
        data=values,
        chunks=(2, 2, 2),
        zarr_format=version,
        chunk_key_encoding={"name": kind, "separator": separator},
        fill_value=0.5,
    )
    return tmp_path / "a", tmp_path / "a" / NAMES[request.param]


def test_what_is_not_there_is_counted(array, caplog):
    path, chunk = array
    (path / "notes.txt").write_text("1.1.1")
    with caplog.at_level("INFO"):
        assert absent_chunks.say(open_volume(path)) == ""
        assert not caplog.messages
        chunk.unlink()
        said = "1 of 8 chunks are not there and read as the fill value 0.5"
        assert absent_chunks.say(open_volume(path)) == said
    assert caplog.messages == [f"{path}: {said}"]


@pytest.mark.parametrize("driver", ["n5", "neuroglancer_precomputed"])
def test_of_n5_and_precomputed_too(tmp_path, driver):
    path = tmp_path / "a"
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
    missing, shape = path / "1" / "0" / "1", (3, 4, 4)
    if driver != "n5":
        spec["scale_metadata"] = {
            "resolution": [8, 8, 8],
            "chunk_size": [2, 2, 2],
            "encoding": "raw",
            "voxel_offset": [-2, 0, 100],
        }
        spec["multiscale_metadata"] = {"type": "image", "data_type": "uint8"}
        spec["scale_metadata"]["size"] = shape
        spec["multiscale_metadata"]["num_channels"] = 1
        missing = path / "8_8_8" / "0-1_0-2_102-104"
        store = ts.open(spec, create=True).result()
    else:
        spec["metadata"] = {"blockSize": [2, 2, 2]}
        store = ts.open(spec, create=True, dtype=ts.uint8, shape=shape).result()
    store[...] = 1
    assert absent_chunks.say(open_volume(path)) == ""
    missing.unlink()
    said = "1 of 8 chunks are not there and read as the fill value 0"
    assert absent_chunks.say(open_volume(path)) == said


def test_a_pipe_that_opening_did_not_see_is_refused(array, monkeypatch):
    path, chunk = array
    chunk.unlink()
    os.mkfifo(chunk)
    monkeypatch.setattr(zarr_folder, "_LOOKED_AT", 0)
    with pytest.raises(InputError, match="a has a chunk .*1.0.1 that is no file"):
        absent_chunks.say(open_volume(path))


def test_a_manifest_knows_better_and_other_files_have_none(tmp_path):
    array = create_zarr(
        tmp_path / "a", shape=(4, 4, 4), dtype="uint8", chunks=(2, 2, 2), axes="xyz"
    )
    with Manifest(tmp_path / "a", {}) as manifest:
        manifest.record("all", array.chunk_facts(..., tmp_path / "a"))
        manifest.finish()
    assert absent_chunks.say(open_volume(tmp_path / "a")) == ""
    assert absent_chunks.say(from_array(np.zeros((2, 2, 2)), "xyz")) == ""
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 2), np.uint8))
    assert absent_chunks.say(open_volume(tmp_path / "a.npy")) == ""
