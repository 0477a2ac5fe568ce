"""What is durable, after every way in which a writer can stop or a file can be lost."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
from isal import isal_zlib

from nisbjax.errors import InputError
from nisbjax.store import stored
from nisbjax.store.finished import require_finished
from nisbjax.store.manifest import Manifest, require_same
from nisbjax.store.manifest_lines import path_inside
from nisbjax.store.volume import create_zarr

MADE_FROM = {"image": "a1", "scale": 0.2, "shape": (3, 4)}
PARTS = ("0:4,0:4,0:4", "0:4,0:4,4:8")


@pytest.fixture
def artifact(tmp_path):
    return tmp_path / "new" / "raw.zarr"


def written(artifact):
    """Two parts of one file each, `0.0.0` and `0.0.1`."""
    with Manifest(artifact, MADE_FROM) as manifest:
        for i, key in enumerate(PARTS):
            name = f"0.0.{i}"
            (artifact / name).write_bytes(b"voxels %d" % i)
            facts = {} if i else {"planes": [1, 2]}
            manifest.record(key, {name: stored.of_file(artifact / name)}, **facts)
    return path_inside(artifact).read_bytes()


def test_a_second_start_finds_what_is_done(artifact):
    written(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        assert manifest.done(PARTS[0]) and not manifest.done("4:8,0:4,0:4")
        assert manifest.keys == list(PARTS)
        assert manifest.facts(PARTS[0]) == {"key": PARTS[0], "planes": [1, 2]}
        # CRC-32 of "voxels 0", as any program has it.
        assert manifest.files(PARTS[0]) == {"0.0.0": (8, isal_zlib.crc32(b"voxels 0"))}
        assert not manifest.finished and manifest.finish_facts == {}
        manifest.finish(voxels=8)
    with Manifest(artifact, MADE_FROM) as manifest:
        assert manifest.finished and manifest.finish_facts == {"voxels": 8}
    # Header, two parts, the finish; one JSON object a line.
    lines = path_inside(artifact).read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 4
    assert path_inside(artifact) == artifact / ".manifest.jsonl"


def test_a_torn_last_line_is_dropped_wherever_it_is_torn(artifact):
    whole, path = written(artifact), path_inside(artifact)
    lines = whole.splitlines(keepends=True)
    before = len(whole) - len(lines[-1])
    for length in (before + 1, before + 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with Manifest(artifact, MADE_FROM) as manifest:
            assert manifest.keys == [PARTS[0]]
            manifest.record(PARTS[1], {"0.0.1": stored.of_file(artifact / "0.0.1")})
        assert path.read_bytes() == whole
    # Torn in its first line, before there was an array, a manifest begins again.
    for name in ("0.0.0", "0.0.1"):
        (artifact / name).unlink()
    path.write_bytes(whole[:5])
    with Manifest(artifact, MADE_FROM) as manifest:
        assert manifest.keys == []
    assert path.read_bytes() == lines[0]


def test_another_fingerprint_is_refused_by_name(artifact):
    before = written(artifact)
    match = r"raw.zarr belongs to a run with other image, tta \(image: 'a1', now 'b2'\)"
    for refuse in (Manifest, require_same):
        with pytest.raises(InputError, match=match):
            refuse(artifact, {**MADE_FROM, "image": "b2", "tta": "flips"})
    assert path_inside(artifact).read_bytes() == before


@pytest.mark.parametrize(
    "line", [b'{"key": "0', b"5", b"null", b'{"key": 3}', b'{"key": "a", "files": 1}']
)
def test_damage_before_the_last_line_is_refused_by_line(artifact, line):
    lines = written(artifact).splitlines(keepends=True)
    path_inside(artifact).write_bytes(lines[0] + line + b"\n" + lines[2])
    with pytest.raises(
        InputError, match=r"manifest.jsonl, line 2.*; remove .*zarr and"
    ):
        Manifest(artifact, MADE_FROM)
    # What the line says is true: with the artifact removed, the stage begins again.
    shutil.rmtree(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        assert manifest.keys == []


def test_threads_write_whole_lines(artifact):
    with Manifest(artifact, MADE_FROM) as manifest:

        def work(worker):
            for box in range(10):
                manifest.record(f"{worker}/{box}", padding="x" * 200)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Manifest(artifact, MADE_FROM) as manifest:
        assert set(manifest.keys) == {f"{w}/{b}" for w in range(4) for b in range(10)}


def test_a_line_that_a_full_disk_cuts_is_taken_back(artifact, monkeypatch):
    before = written(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        write = os.write

        def full(descriptor, content):
            if len(content) > 10:
                return write(descriptor, content[:10])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("nisbjax.store.manifest.os.write", full)
            with pytest.raises(OSError, match="No space left.*manifest.jsonl"):
                manifest.record("c" * 40)
        assert path_inside(artifact).read_bytes() == before
        manifest.record("c")
    with Manifest(artifact, MADE_FROM) as manifest:
        assert manifest.keys == [*PARTS, "c"]


def test_only_an_own_unfinished_artifact_is_refused(artifact, tmp_path):
    require_finished(tmp_path / "other")  # another program's: no manifest
    written(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        with pytest.raises(
            InputError, match=r"raw.zarr is unfinished \(2 parts are written\); run"
        ):
            require_finished(artifact)
        manifest.finish()
    require_finished(artifact)


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    path.write_bytes(b"Voxels" + path.read_bytes()[6:])


LOSSES = {
    remove: "chunk 0.0.1 is missing",
    cut: r"chunk 0.0.1 is damaged \(7 bytes; it had 8\)",
    flip: "chunk 0.0.1 is damaged .its checksum is [0-9a-f]{8}, not [0-9a-f]{8}",
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("finished", [False, True])
def test_a_damaged_part_is_found_forgotten_and_made_again(
    artifact, loss, finished, caplog
):
    written(artifact)
    if finished:
        with Manifest(artifact, MADE_FROM) as manifest:
            manifest.finish()
    loss(artifact / "0.0.1")
    if finished and loss is not flip:  # sizes are cheap, and always looked at
        with pytest.raises(InputError, match=LOSSES[loss] + ".*; run the stage"):
            require_finished(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        if loss is flip:
            assert manifest.verify(contents=False) == []
        else:
            with pytest.raises(InputError, match=LOSSES[loss] + ".*changed while"):
                manifest.finish()
        assert manifest.verify() == [PARTS[1]]
        assert not manifest.finished and manifest.keys == [PARTS[0]]
    assert f"part {PARTS[1]} is made again" in caplog.text
    # Killed here, the next start knows.
    with Manifest(artifact, MADE_FROM) as manifest:
        assert not manifest.finished and manifest.keys == [PARTS[0]]
        (artifact / "0.0.1").write_bytes(b"voxels 1")
        manifest.record(PARTS[1], {"0.0.1": stored.of_file(artifact / "0.0.1")})
        assert manifest.verify() == []
        manifest.finish()
    require_finished(artifact)


def test_a_file_that_two_parts_name_is_as_the_last_one_says(artifact):
    written(artifact)
    (artifact / "0.0.0").write_bytes(b"other")
    with Manifest(artifact, MADE_FROM) as manifest:
        manifest.record("0:4,0:4,0:2", {"0.0.0": stored.of_file(artifact / "0.0.0")})
        assert manifest.verify() == []


def test_a_chunk_that_was_never_written_must_not_be_there(artifact):
    with Manifest(artifact, MADE_FROM) as manifest:
        manifest.record("a", {"0.0.0": None})
        assert manifest.verify() == []
        (artifact / "0.0.0").write_bytes(b"x")
        assert list(manifest.damaged(contents=False).values()) == [
            "chunk 0.0.0 is damaged (it was never written, and a file is there)"
        ]


def test_an_artifact_that_is_removed_while_it_is_written(artifact):
    written(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        shutil.rmtree(artifact)
        artifact.mkdir()
        (artifact / "0.0.1").write_bytes(b"a chunk that was on its way")
        with pytest.raises(InputError, match="raw.zarr was removed or replaced while"):
            manifest.record("later")
        with pytest.raises(InputError, match="raw.zarr was removed or replaced while"):
            manifest.finish()
    # The next start begins again.
    with Manifest(artifact, MADE_FROM) as manifest:
        assert manifest.keys == []
    assert [p.name for p in artifact.iterdir()] == [".manifest.jsonl"]


def test_what_another_program_wrote_is_left_alone(tmp_path):
    values = np.ones((4, 4), np.uint8)
    foreign = create_zarr(
        tmp_path / "foreign.zarr", shape=(4, 4), dtype="u1", chunks=(4, 4), axes="xy"
    )
    foreign.write(..., values)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read me").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for name, text in (
        (
            "foreign.zarr",
            "foreign.zarr was not written by this stage: it has no .manif",
        ),
        ("notes", "notes was not written by this stage"),
        ("file", "file is a file, and a folder is to be written there; remove it"),
    ):
        for refuse in (require_same, Manifest):
            with pytest.raises(InputError, match=text):
                refuse(tmp_path / name, MADE_FROM)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    # An array without a voxel holds nothing that could be lost.
    foreign.write(..., 0 * values)
    assert not (tmp_path / "foreign.zarr" / "0.0").exists()
    Manifest(tmp_path / "foreign.zarr", MADE_FROM).close()


@pytest.mark.parametrize("lost", [(1,), (2,), (1, 2)])
def test_a_manifest_that_lost_lines_is_not_believed(artifact, lost):
    """Header, two parts, the finish: without a part, whose chunk nobody would miss."""
    written(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        manifest.finish()
    path = path_inside(artifact)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(v for i, v in enumerate(lines) if i not in lost))
    with pytest.raises(
        InputError, match=rf"unfinished \({2 - len(lost)} parts are wri"
    ):
        require_finished(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        assert not manifest.finished


def test_a_finish_that_counts_no_parts_is_not_believed(artifact):
    """As older versions wrote it; the stage that wrote it finishes it again."""
    written(artifact)
    with open(path_inside(artifact), "a") as file:
        file.write('{"finished": {}}\n')
    with pytest.raises(InputError, match="unfinished"):
        require_finished(artifact)
    with Manifest(artifact, MADE_FROM) as manifest:
        manifest.finish()
    require_finished(artifact)
