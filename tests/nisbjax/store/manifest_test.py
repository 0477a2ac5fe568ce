"""What is durable, after every way in which a writer can stop."""

import json
import threading

import pytest

from nisbjax.errors import InputError
from nisbjax.store.manifest import Manifest, path_beside, require_finished

MADE_FROM = {"image": "a1", "scale": 0.2, "shape": (3, 4)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "raw.zarr.manifest.jsonl"


def written(path):
    with Manifest(path, MADE_FROM) as manifest:
        manifest.record("0:4,0:4,0:4", "c0", planes=[1, 2])
        manifest.record("0:4,0:4,4:8", "c1")
    return path.read_bytes()


def test_a_second_start_finds_what_is_done(path):
    written(path)
    with Manifest(path, MADE_FROM) as manifest:
        assert manifest.done("0:4,0:4,0:4") and not manifest.done("4:8,0:4,0:4")
        assert manifest.keys == ["0:4,0:4,0:4", "0:4,0:4,4:8"]
        assert manifest.facts("0:4,0:4,0:4") == {
            "key": "0:4,0:4,0:4",
            "checksum": "c0",
            "planes": [1, 2],
        }
        assert not manifest.finished and manifest.finish_facts == {}
        manifest.finish(voxels=8)
    with Manifest(path, MADE_FROM) as manifest:
        assert manifest.finished and manifest.finish_facts == {"voxels": 8}
    # Header, two boxes, the finish; one JSON object a line.
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4


def test_a_torn_last_line_is_dropped_wherever_it_is_torn(path):
    whole = written(path)
    lines = whole.splitlines(keepends=True)
    before = len(whole) - len(lines[-1])
    for length in (before + 1, before + 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with Manifest(path, MADE_FROM) as manifest:
            assert manifest.keys == ["0:4,0:4,0:4"]
            manifest.record("0:4,0:4,4:8", "c1")
        assert path.read_bytes() == whole
    # Torn in its first line, a manifest begins again.
    path.write_bytes(whole[:5])
    with Manifest(path, MADE_FROM) as manifest:
        assert manifest.keys == []
    assert path.read_bytes() == lines[0]


def test_another_fingerprint_is_refused_by_name(path):
    before = written(path)
    with pytest.raises(
        InputError,
        match=r"belongs to a run with other image, tta \(image: 'a1', now 'b2'\)",
    ):
        Manifest(path, {**MADE_FROM, "image": "b2", "tta": "flips"})
    assert path.read_bytes() == before


def test_damage_before_the_last_line_is_refused_by_line(path):
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:9] + b"\n" + lines[2])
    with pytest.raises(
        InputError, match=r"is damaged in line 2; remove it and its art"
    ):
        Manifest(path, MADE_FROM)


def test_threads_write_whole_lines(path):
    with Manifest(path, MADE_FROM) as manifest:

        def work(worker):
            for box in range(10):
                manifest.record(f"{worker}/{box}", "c", padding="x" * 200)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Manifest(path, MADE_FROM) as manifest:
        assert set(manifest.keys) == {f"{w}/{b}" for w in range(4) for b in range(10)}


def test_only_an_own_unfinished_artifact_is_refused(tmp_path):
    artifact = tmp_path / "raw.zarr"
    assert path_beside(artifact) == tmp_path / "raw.zarr.manifest.jsonl"
    require_finished(artifact)  # another program's: no manifest
    with Manifest(path_beside(artifact), MADE_FROM) as manifest:
        manifest.record("a", "c")
        with pytest.raises(
            InputError, match=r"raw.zarr is unfinished \(1 parts are written\); run"
        ):
            require_finished(artifact)
        manifest.finish()
    require_finished(artifact)
