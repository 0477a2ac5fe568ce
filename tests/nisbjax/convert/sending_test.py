"""Outputs at addresses, of a server of this machine that speaks S3 as far as it is asked."""

import pathlib
import shutil

import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.convert import stage
from nisbjax.errors import InputError
from nisbjax.store import access
from nisbjax.store.manifest_lines import NAME
from nisbjax.store.volume import open_labels
from tests.web_server import serving_s3

# 3 x 2 x 2 chunks of 4^3, one of them empty; with a pyramid 2 more.
LABELS = np.arange(1, 10 * 8 * 8 + 1, dtype=np.uint32).reshape(10, 8, 8)
LABELS[4:8, 4:, 4:] = 0


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """What the server is to answer, by the number of the object that is sent."""
    (tmp_path / "server/bucket").mkdir(parents=True)
    np.save(tmp_path / "labels.npy", LABELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(access, "_FIRST_DELAY", "1ms")
    with serving_s3(tmp_path / "server") as (endpoint, found):
        asked = access.Access(endpoint, anonymous=True, retries=1, timeout_s=1)
        access.settle(asked)
        yield found
        access.settle(access.Access())


def _convert(path: str, form: str = "auto", **keys):
    section = base_config().convert
    section.update({"chunks": (4, 4, 4), "voxel_size_nm": (8, 8, 8), "format": form})
    section.update({"memory_gb": 1.1e-6, **keys})
    return stage.run(section, "labels.npy", path)


def _files(folder: str) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "form, path, scales",
    [("zarr2", "em", 0), ("precomputed", "em", 1), ("n5", "data.n5/raw/em", 1)],
)
def test_an_address_gets_what_a_folder_gets(faults, form, path, scales):
    faults[3] = 503  # tried again
    written = _convert(f"s3://bucket/{path}", form, downsample=scales)
    assert str(written) == f"s3://bucket/{path}"
    _convert(f"here/{path}", form, downsample=scales)
    assert _files("server/bucket") == _files("here")
    assert not pathlib.Path("s3_bucket").exists()  # nothing stays
    np.testing.assert_array_equal(open_labels(written).read(), LABELS)
    faults.update(dict.fromkeys(range(100), 403))
    _convert(f"s3://bucket/{path}", form, downsample=scales)  # is there already
    with pytest.raises(
        InputError, match=f"s3://bucket/{path} belongs to a run with oth"
    ):
        _convert(f"s3://bucket/{path}", form, downsample=scales, dtype="uint64")


@pytest.mark.parametrize("form", ["zarr3", "precomputed"])
def test_what_was_sent_is_not_sent_again(faults, form):
    faults.update(dict.fromkeys(range(6, 20), 403))
    with pytest.raises(
        InputError, match="s3://bucket/em/.*: it may not be written .*na"
    ):
        _convert("s3://bucket/em", form)
    sent = _files("server/bucket/em")
    assert len(sent) == 5
    with pytest.raises(InputError, match="no volume at s3://bucket/em"):
        open_labels("s3://bucket/em")
    faults.clear()
    lost = min(sent)
    pathlib.Path("server/bucket/em", lost).unlink()  # meanwhile
    times = {name: _time_of(name) for name in sorted(sent)[1:3]}
    _convert("s3://bucket/em", form)
    assert times == {name: _time_of(name) for name in times}
    _convert("em", form)
    made, wanted = _files("server/bucket/em"), _files("em")
    assert b"forgotten" in made.pop(NAME)  # the part that was lost
    del wanted[NAME]
    assert made == wanted


def _time_of(name: str) -> int:
    return pathlib.Path("server/bucket/em", name).stat().st_mtime_ns


def test_what_is_in_the_way_is_refused(faults):
    pathlib.Path("server/bucket/em/0").mkdir(parents=True)
    pathlib.Path("server/bucket/em/0/0").write_bytes(b"1")
    for path, form, line in (
        (
            "s3://bucket/em",
            "zarr2",
            "s3://bucket/em holds objects already, and no .man",
        ),
        (
            "http://h/em.zarr",
            "auto",
            "http://h/em.zarr is at a web server, which is rea",
        ),
        (
            "s3://bucket",
            "zarr2",
            "s3://bucket is no place of one output; wanted s3://b",
        ),
        (
            "s3://bucket/a.tif",
            "auto",
            "s3://bucket/a.tif is to be TIFF, a single file, ",
        ),
        ("s3://bucket/a", "auto", "s3://bucket/a does not say its format"),
    ):
        with pytest.raises(InputError, match=line):
            _convert(path, form)
    assert not pathlib.Path("s3_bucket").exists()
    shutil.rmtree("server/bucket/em")
    _convert("s3://bucket/em", "zarr2")
    section = base_config().convert
    section.format = "zarr2"
    with pytest.raises(
        InputError, match="s3://bucket/em/a is the input, s3://bucket/em;"
    ):
        stage.run(section, "s3://bucket/em", "s3://bucket/em/a")
