"""Chunks of a finished artifact are compared before they are believed, in every way of reading."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from nisbjax.data.nisb import _cut
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.store import stored, verified
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.finished import require_finished
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import create_zarr, open_image, open_volume

SHAPE = (4, 6, 4)  # in chunks of 2^3: 2 x 3 x 2
PLANE = Box((0, 0, 0), (4, 2, 4))  # the chunks x.0.z


@pytest.fixture
def artifact(tmp_path):
    """Voxels that are 0 where y > 3, so that the chunks x.2.z are never written."""
    path = tmp_path / "labels.zarr"
    values = np.arange(1, 97, dtype=np.uint32).reshape(SHAPE)
    values[:, 4:] = 0
    with Manifest(path, {}) as manifest:
        output = create_zarr(
            path, shape=SHAPE, dtype="u4", chunks=(2, 2, 2), axes="xyz"
        )
        output.write(..., values)
        manifest.record("all", output.chunk_facts(Box.whole(SHAPE), path))
        assert len(manifest.files("all")) == 12
        assert manifest.files("all")["0.2.0"] is None
        manifest.finish()
    return path


def overwrite(path):
    """With a chunk that can be read: zeros are what silent losses look like."""
    other = create_zarr(
        path.parent.parent / "other", shape=SHAPE, dtype="u4", chunks=(2, 2, 2),
        axes="xyz",
    )  # fmt: skip
    other.write(..., np.full(SHAPE, 7, np.uint32))
    shutil.copy(path.parent.parent / "other" / "0.0.0", path)


HARMS = {
    "missing": lambda path: path.unlink(),
    "damaged .* bytes": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "damaged": overwrite,
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_chunk_is_named_by_whatever_reads_it(artifact, harm):
    HARMS[harm](artifact / "1.0.1")
    line = (
        rf"labels.zarr: chunk 1\.0\.1 is {harm}.*; run the stage that writes it again"
    )
    whole = open_volume(artifact)
    turned = open_volume(artifact, axes="xyz").view(
        whole.store[:, :, 3:4].translate_to[0, 0, 0]
    )
    ways = [
        whole.read,
        lambda: whole.read(PLANE),
        lambda: whole.start_read((3, 1, slice(2, 4))).result(),
        lambda: whole.read((np.array([0, 3]), slice(0, 1), 3)),
        lambda: turned.read((slice(2, 3), 1)),
        lambda: open_image(artifact).read_channel(PLANE, 0),
        lambda: _cut(open_image(artifact), Box((2, 0, 2), SHAPE)).read(),
        lambda: pickle.loads(pickle.dumps(whole)).read(PLANE),
        # An artifact that lacks a chunk is damaged, and not another one.
        lambda: fingerprint(artifact),
    ]
    for way in ways:
        with pytest.raises(InputError, match=line):
            way()
    # What is not read is not looked at, but for the sizes.
    np.testing.assert_array_equal(whole.read((slice(0, 2), 0, 0)), [1, 25])
    if harm == "damaged":
        require_finished(artifact)
    else:
        with pytest.raises(InputError, match=line):
            require_finished(artifact)


@pytest.mark.parametrize("left", [0, 9])
def test_a_manifest_that_lost_its_lines_makes_nothing_whole(artifact, left):
    path = artifact / ".manifest.jsonl"
    path.write_bytes(path.read_bytes()[:left])
    for way in (require_finished, open_volume, fingerprint):
        with pytest.raises(InputError, match=r"labels.zarr is unfinished \(0 parts"):
            way(artifact)


def test_a_chunk_that_was_never_written_must_stay_so(artifact):
    shutil.copy(artifact / "0.0.0", artifact / "0.2.0")
    with pytest.raises(
        InputError, match="chunk 0.2.0 is damaged .it was never written"
    ):
        open_volume(artifact).read()


def test_each_chunk_is_compared_once(artifact, monkeypatch):
    compared = []
    of_file = stored.of_file
    monkeypatch.setattr(
        stored, "of_file", lambda path: compared.append(path.name) or of_file(path)
    )
    volume = open_volume(artifact)
    for _ in range(2):
        volume.read(PLANE)
    chunks = [name for name in compared if not name.startswith(".")]
    assert sorted(chunks) == ["0.0.0", "0.0.1", "1.0.0", "1.0.1"]


def test_an_unfinished_array_is_not_opened(artifact):
    manifest = artifact / ".manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"labels.zarr is unfinished \(1 parts"):
        open_volume(artifact)


def test_without_a_manifest_nothing_is_compared_but_our_own_are_refused(artifact):
    (artifact / ".manifest.jsonl").unlink()
    (artifact / "0.0.0").unlink()
    assert not isinstance(open_volume(artifact).guard, verified.Guard)
    assert (open_volume(artifact).read((slice(0, 2), slice(0, 2), 0)) == 0).all()
    for words in ({"software": "nisbjax 0.9"}, {"made_of": {}}):
        (artifact / ".zattrs").write_text(
            json.dumps({"axes": ["x", "y", "z"], **words})
        )
        with pytest.raises(InputError, match=r"nisbjax wrote it and has no .manifest"):
            open_volume(artifact)


@pytest.mark.parametrize(
    "change", [{"order": "F"}, {"fill_value": 7}, {"dtype": "<i4"}]
)
def test_metadata_are_compared_as_they_were_at_the_finish(artifact, change):
    """Column-major order gives another array of the same chunks, and no error."""
    path = artifact / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(
        InputError, match=r"file .zarray is damaged .*makes that part again"
    ):
        open_volume(artifact)
    with pytest.raises(InputError, match="file .zarray is damaged"):
        require_finished(artifact)


def test_attributes_may_be_edited_and_not_be_lost(artifact):
    (artifact / ".zattrs").write_text(json.dumps({"axes": ["x", "y", "z"], "note": 5}))
    assert open_volume(artifact).attributes["note"] == 5
    (artifact / ".zattrs").unlink()
    with pytest.raises(InputError, match="file .zattrs is missing"):
        open_volume(artifact)
    (artifact / ".zattrs").write_text("null")
    with pytest.raises(InputError, match="file .zattrs holds no attributes"):
        require_finished(artifact)


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def make_loop(path):
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("spoil", [make_folder, make_pipe, make_loop])
def test_what_is_no_file_is_damage_and_is_removed_before_it_is_written_again(
    artifact, spoil
):
    spoil(artifact / "0.0.0")
    with pytest.raises(InputError, match="0.0.0 is no file, but a folder, a pipe"):
        require_finished(artifact)
    spoil(artifact / ".zarray")
    with Manifest(artifact, {}) as manifest:
        assert len(manifest.verify()) == 1 and not manifest.finished
    assert not os.path.lexists(artifact / "0.0.0")
    assert not os.path.lexists(artifact / ".zarray")


def test_an_artifact_that_was_removed_does_not_reopen_in_a_worker(artifact):
    sent = pickle.dumps(open_volume(artifact))
    (artifact / ".manifest.jsonl").unlink()
    with pytest.raises(
        InputError, match="labels.zarr was removed or replaced while it"
    ):
        pickle.loads(sent)


def test_a_fingerprint_is_that_of_the_voxels_not_of_the_manifest(artifact, tmp_path):
    before = fingerprint(artifact)
    with Manifest(artifact, {}) as manifest:
        manifest.note("later")
    (artifact / ".scratch").mkdir()
    (artifact / ".scratch" / "0.npz").write_bytes(b"x")
    assert fingerprint(artifact) == before
    (artifact / ".manifest.jsonl").unlink()
    assert fingerprint(artifact) == before
