"""Servers that say nothing: one line after the tries that were allowed, and then again.

In processes of their own, since libcurl is told once how long to wait.
"""

import subprocess
import sys

import numpy as np
import pytest

from tests.web_server import serving, serving_s3

pytestmark = pytest.mark.slow


def _convert(folder, source: str, target: str, *keys: str) -> str:
    """What a conversion ends with; the last line, which it fails with."""
    flags = ("remote.timeout_s=1", "remote.retries=1", "remote.anonymous=True", *keys)
    command = [sys.executable, "-m", "nisbjax", "--mode=convert", source, target]
    done = subprocess.run(
        [*command, *(f"--config.{flag}" for flag in flags)],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def test_one_that_is_read_from(tmp_path):
    with serving(tmp_path) as (server, _):
        said = _convert(tmp_path, f"{server}/slow/em", "em.zarr")
    assert said.startswith(f"nisbjax: {server}/slow/em")
    assert "it cannot be reached (All 1 retry attempts failed" in said
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_written_to(tmp_path):
    (tmp_path / "server/bucket").mkdir(parents=True)
    np.save(tmp_path / "labels.npy", np.ones((8, 8, 8), np.uint32))
    with serving_s3(tmp_path / "server") as (endpoint, faults):
        faults.update(dict.fromkeys(range(1, 9), -1))
        keys = ("convert.format=zarr2", f"remote.endpoint={endpoint}")
        said = _convert(tmp_path, "labels.npy", "s3://bucket/em", *keys)
    assert said.startswith("nisbjax: s3://bucket/em/0.0.0: it cannot be reached (")
    assert said.endswith("--config.remote.endpoint and the network")
