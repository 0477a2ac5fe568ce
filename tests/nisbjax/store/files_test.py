"""Files that are there whole or not at all."""

import json
import os
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.store import files


def dead_process() -> int:
    """The id of a process that has ended and was waited for."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_the_file_appears_when_the_body_ends(tmp_path):
    path = tmp_path / "new" / "report.txt"
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["report.txt"]


def test_a_body_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "report.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("after")
        1 / 0  # noqa: B018
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.txt"]


def test_a_disk_that_is_full_meanwhile_is_named_by_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with (
        pytest.raises(OSError, match="No space left on device: '.*a.txt'"),
        files.replacing(path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"a")
    assert not list(tmp_path.iterdir())


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    files.write_text(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    start = f"a.txt.{socket.gethostname()}.{os.getpid()}-"
    first = next(files._numbers)
    for number in range(first + 1, first + 5):
        (tmp_path / f"{start}{number}.partial").symlink_to(victim)
    files.write_text(tmp_path / "a.txt", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_folders_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe", "a device, pipe")):
        with pytest.raises(InputError, match=f"is {kind}.*; name a file to write to"):
            files.write_text(path, "x")
    with pytest.raises(InputError, match="/dev/null is a device"):
        files.write_text("/dev/null", "x")


def test_what_a_dead_process_left_is_swept_and_a_living_one_is_not(tmp_path):
    path = tmp_path / "a.txt"
    here = socket.gethostname()
    dead = tmp_path / f"a.txt.{here}.{dead_process()}-0.partial"
    living = tmp_path / f"a.txt.{here}.{os.getppid()}-0.partial"
    elsewhere = tmp_path / f"a.txt.another.{dead_process()}-0.partial"
    for found in (dead, living, elsewhere):
        found.write_text("half")
    files.write_text(path, "whole")
    assert not dead.exists()
    assert living.exists()
    assert elsewhere.exists()


def test_json_of_what_json_cannot_hold_is_text(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        reference = file.create_dataset("x", data=[1]).ref
        value = {
            "bytes": b"9 \xb5m",
            "complex": 1 + 2j,
            "nan": float("nan"),
            "numpy": np.float32(0.5),
            "array": np.array([[1, 2]]),
            "void": np.void(b"abc"),
            "compound": np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]),
            "empty": h5py.Empty("f4"),
            "reference": reference,
            "tuple": (1, "a", None, True),
        }
        files.write_json(tmp_path / "a.json", value)
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["bytes"] == "9 \N{REPLACEMENT CHARACTER}m"
    assert found["complex"] == "(1+2j)"
    assert found["nan"] == "nan"
    assert found["numpy"] == 0.5
    assert found["array"] == [[1, 2]]
    assert found["compound"] == [[1, 2.0]]
    assert found["tuple"] == [1, "a", None, True]
    assert {"void", "empty", "reference"} < found.keys()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.longdouble(1.5), "1.5"),
        (np.array([np.longdouble(1.5)]), ["1.5"]),
        (1 + 2j, "(1+2j)"),
        (np.void(b"abc"), "abc"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]), [[1, 2.0]]),
        (np.array([b"x", b"\xb5"]), ["x", "\ufffd"]),
        (h5py.Empty("f4"), "Empty(dtype=dtype('float32'))"),
        (np.datetime64("2020-01-01"), "2020-01-01"),
        ([np.nan, np.inf], ["nan", "inf"]),
        ({(1, 2): {3}}, {"(1, 2)": [3]}),
        ("\ud800", "\ud800"),
        (1 << 2000, hex(1 << 2000)),
    ],
)
def test_whatever_an_attribute_is_has_a_form_in_json(tmp_path, value, written):
    files.write_json(tmp_path / "report.json", {"attribute": value})
    found = json.loads((tmp_path / "report.json").read_text())
    assert found == {"attribute": written}


def test_what_holds_itself_is_cut():
    value = []
    value.append(value)
    found = files.plain(value)
    for _ in range(32):
        (found,) = found
    assert found == "..."


def test_text_that_is_no_unicode_is_written_all_the_same(tmp_path):
    """As a file's name that is not UTF-8 comes into a report."""
    files.write_text(tmp_path / "report.txt", os.fsdecode(b"seg_\xb5.h5"))
    assert (tmp_path / "report.txt").read_text() == "seg_\\udcb5.h5"
