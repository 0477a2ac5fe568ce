"""What --redo replaces, and what it leaves alone."""

import os

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.store import redo
from nisbjax.store.finished import require_finished
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import create_zarr


def made(path, **fingerprint):
    """A finished array of 4 x 4 x 4 voxels, of which two chunks hold any."""
    with Manifest(path, fingerprint) as manifest:
        volume = create_zarr(
            path, shape=(4, 4, 4), dtype="uint8", chunks=(2, 4, 4), axes="xyz"
        )
        volume.write(..., np.ones((4, 4, 4), np.uint8))
        manifest.record("all")
        manifest.finish()
    return path


def test_an_artifact_goes_with_its_manifest(tmp_path):
    path = made(tmp_path / "labels.zarr", affinities="a", threshold=0.5)
    (path / ".scratch").mkdir()
    redo.require_ours(path, "affinities")
    redo.remove(path, "affinities")
    assert not list(tmp_path.iterdir())
    redo.remove(path, "affinities")  # nothing is there


def others(folder):
    """Path by path, what is not to be replaced, and what is said of it."""
    image = folder / "image.zarr"
    create_zarr(image, shape=(2, 2, 2), dtype="uint8", chunks=(2, 2, 2), axes="xyz")
    (image / "0.0.0").write_bytes(b"x")
    (folder / "notes.zarr").mkdir()
    (folder / "notes.zarr" / "notes.txt").touch()
    (folder / "file.zarr").touch()
    made(folder / "raw.zarr", network="n", image="i")
    (folder / "link.zarr").symlink_to(folder / "raw.zarr")
    return {
        "image": "was not written by this stage",
        "notes": "was not written by this stage",
        "file": "is a file",
        "raw": "was made by another stage",
        "link": "is a link",
    }


def test_what_others_made_stays(tmp_path):
    before = None
    for name, said in others(tmp_path).items():
        before = before or sorted(tmp_path.rglob("*"))
        for ask in (redo.require_ours, redo.remove):
            with pytest.raises(InputError, match=said):
                ask(tmp_path / f"{name}.zarr", "affinities")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kill_on_the_way_leaves_what_nobody_believes(tmp_path, monkeypatch):
    path = made(tmp_path / "labels.zarr", affinities="a")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rmdir", killed)
    monkeypatch.setattr(type(path), "unlink", stopping_at(".zattrs", type(path).unlink))
    with pytest.raises(KeyboardInterrupt):
        redo.remove(path, "affinities")
    monkeypatch.undo()
    assert (path / ".manifest.jsonl").exists() and not (path / ".zarray").exists()
    with pytest.raises(InputError, match="run the stage that writes it again"):
        require_finished(path)
    redo.remove(path, "affinities")
    assert not path.exists()


def stopping_at(name, unlink):
    def stopped(self, **options):
        unlink(self, **options)
        if self.name == name:
            raise KeyboardInterrupt

    return stopped
