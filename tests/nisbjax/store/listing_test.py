"""Patterns at addresses, answered by a server that speaks Google's lists."""

import os
import pathlib
import subprocess
import sys

import pytest

from nisbjax.errors import InputError
from nisbjax.store import listing
from tests.web_server import serving

# In a process of its own, since TensorStore reads Google's address once.
_READ = """
import numpy as np
from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store.volume import open_labels
found = nisb.find("gs://bucket/nisb", "train/seed*/data.zarr/seg")
print(*found)
print(*(int(open_labels(path).read().sum()) for path in found))
for pattern in ("train/*", "val/seed*/data.zarr/seg"):
    try:
        nisb.find("gs://bucket/nisb", pattern)
    except InputError as problem:
        print(problem)
"""


def test_a_pattern_is_listed_by_what_lies_directly_below_a_folder(tmp_path):
    for seed, value in ((10, 5), (2, 3), (1, 1), (7, None)):
        array = tmp_path / f"bucket/nisb/train/seed{seed}/data.zarr/seg"
        array.mkdir(parents=True)
        if value is None:  # a folder that matches, and holds no volume
            continue
        (array / ".zarray").write_text(
            '{"zarr_format": 2, "shape": [2, 2, 2], "chunks": [2, 2, 2], "dtype": "|u1",'
            '"compressor": null, "fill_value": 0, "order": "C", "filters": null}'
        )
        (array / "0.0.0").write_bytes(bytes([value] * 8))
    with serving(tmp_path) as (server, asked):
        env = {**os.environ, "TENSORSTORE_GCS_HTTP_URL": server, "NO_GCE_CHECK": "true"}
        env["PYTHONPATH"] = str(pathlib.Path(__file__).parents[3])
        command = [sys.executable, "-c", _READ]
        done = subprocess.run(
            command, check=False, env=env, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == " ".join(
        f"gs://bucket/nisb/train/seed{seed}/data.zarr/seg" for seed in (1, 2, 10)
    )
    assert lines[1] == "8 24 40"
    assert (
        "no volume matches gs://bucket/nisb/train/*; gs://bucket/nisb/train/"
        in (lines[2])
    )
    assert (
        "no volume matches gs://bucket/nisb/val/seed*/data.zarr/seg; check"
        in (lines[3])
    )
    lists = [path for path in asked if "prefix=nisb%2Ftrain%2Fseed" in path]
    assert len(lists) == 2  # four folders in pages of two, and no chunk


def test_what_cannot_be_listed_is_refused(monkeypatch):
    for text, line in (
        (
            "https://h/seed*/img",
            "web servers are not listed; name each volume, with com",
        ),
        ("s3://b*/img", "has a pattern for a bucket; wanted its name"),
    ):
        with pytest.raises(InputError, match=line):
            listing.matching(text)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InputError, match=r"needs boto3; pip install 'nisbjax\[s3\]'"):
        listing.matching("s3://b/seed*/img")


def test_a_folder_of_many_names_is_given_up(monkeypatch):
    monkeypatch.setattr(listing, "_pages_of_gs", lambda *_: ({} for _ in range(101)))
    with pytest.raises(InputError, match="gs://b/em holds more than 100,000 names, as"):
        listing.matching("gs://b/em/*")
