"""What nisbjax wrote and somebody copied to an address: a lost chunk does not read as zeros."""

import pickle
import re
import shutil

import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.convert import stage
from nisbjax.errors import InputError
from nisbjax.store import access
from nisbjax.store.volume import open_labels
from tests.web_server import serving

# 3 x 2 x 2 chunks of 4^3, one of them empty.
LABELS = np.arange(1, 10 * 8 * 8 + 1, dtype=np.uint32).reshape(10, 8, 8)
LABELS[4:8, 4:, 4:] = 0


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of a server, its address, and what was asked of it."""
    folder = tmp_path_factory.mktemp("served")
    np.save(folder / "labels.npy", LABELS)
    section = base_config().convert
    section.chunks, section.voxel_size_nm = (4, 4, 4), (8, 8, 8)
    for form in ("zarr2", "zarr3", "n5", "precomputed"):
        section.format = form
        stage.run(section, str(folder / "labels.npy"), str(folder / form))
    with serving(folder) as (server, asked):
        yield folder, server, asked


@pytest.fixture(autouse=True)
def settled():
    access.settle(access.Access(timeout_s=1, retries=0))
    yield
    access.settle(access.Access())


CHUNKS = {
    "zarr2": ("0.1.1", "1.1.1"),
    "zarr3": ("c/0/1/1", "c/1/1/1"),
    "n5": ("0/1/1", "1/1/1"),
    "precomputed": ("8_8_8/0-4_4-8_4-8", ""),  # which leaves none out
}


@pytest.mark.parametrize("form", CHUNKS)
def test_a_chunk_that_was_lost_on_the_way_is_refused(served, form):
    folder, server, _ = served
    there, empty = CHUNKS[form]
    volume = open_labels(f"{server}/{form}")
    for _ in range(2):  # also as another process has it
        np.testing.assert_array_equal(volume.read(), LABELS)
        kept = pickle.dumps(volume.guard)
        access.settle(access.Access())
        volume.guard = pickle.loads(kept)
        assert access.WAY.access.timeout_s == 1
    copy = folder / f"copy_{form}"
    shutil.copytree(folder / form, copy)
    (copy / there).unlink()
    volume = open_labels(f"{server}/copy_{form}")
    np.testing.assert_array_equal(volume.read(np.s_[4:]), LABELS[4:])
    line = (
        f"copy_{form}: (chunk|file) .*{re.escape(there[-3:])} is missing; copy it there"
    )
    with pytest.raises(InputError, match=line):
        volume.read(np.s_[:4, 4:, 4:])
    whole = (folder / form / there).read_bytes()
    for content in (whole[:-1], whole + b"1"):
        (copy / there).write_bytes(content)
        access.settle(access.Access(timeout_s=1, retries=0))
        line = (
            f"is damaged .{len(content) if len(content) > len(whole) else 0} bytes; it"
        )
        with pytest.raises(InputError, match=line):
            open_labels(f"{server}/copy_{form}").read()
    if empty:
        (copy / there).write_bytes(whole)
        (copy / empty).write_bytes(whole)
        with pytest.raises(InputError, match="was never written, and a file is there"):
            open_labels(f"{server}/copy_{form}").read()


def test_each_chunk_is_compared_once(served):
    _, server, asked = served
    volume = open_labels(f"{server}/zarr3")
    before = asked.count("/zarr3/c/0/0/0")
    for _ in range(3):
        volume.read()
    assert asked.count("/zarr3/c/0/0/0") - before <= 2  # read, and compared


def test_a_server_that_knows_no_parts_of_files(served):
    folder, server, _ = served
    volume = open_labels(f"{server}/whole/zarr2")
    np.testing.assert_array_equal(volume.read(), LABELS)
    shutil.copytree(folder / "zarr2", folder / "lossy")
    (folder / "lossy/0.1.1").unlink()
    with pytest.raises(
        InputError, match="lossy: chunk 0.1.1 is missing; copy it there"
    ):
        open_labels(f"{server}/whole/lossy").read()


def test_what_is_unfinished_or_unknown_is_refused(served):
    folder, server, _ = served
    shutil.copytree(folder / "zarr2", folder / "other")
    manifest = folder / "other/.manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))
    with pytest.raises(
        InputError, match=r"other is unfinished \(1 parts .* copy it the"
    ):
        open_labels(f"{server}/other")
    manifest.unlink()
    access.settle(access.Access())
    with pytest.raises(InputError, match="other says that nisbjax wrote it and has no"):
        open_labels(f"{server}/other")
    manifest.write_text("".join(lines))
    words = folder / "other/.zarray"
    words.write_text(words.read_text().replace('"<u4"', '"<i4"'))
    access.settle(access.Access())
    with pytest.raises(InputError, match="file .zarray is damaged .dtype is not as it"):
        open_labels(f"{server}/other")
