"""Data that several slow tests train on, and programs whose memory is measured."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nisbjax.store.volume import create_zarr


@pytest.fixture(scope="session")
def object_grid(tmp_path_factory):
    """Two volumes of 30^3 voxels with 27 objects of 10^3 each, in NISB's layout."""
    root = tmp_path_factory.mktemp("nisb")
    draw = np.random.default_rng(0)
    ids = np.arange(1, 28, dtype=np.uint8).reshape(3, 3, 3)
    labels = ids.repeat(10, 0).repeat(10, 1).repeat(10, 2)
    for volume in ("train/seed0", "val/seed5"):
        for name, values in (
            ("img", draw.integers(0, 256, (*labels.shape, 1), np.uint8)),
            ("seg", labels),
        ):
            create_zarr(
                root / volume / "data.zarr" / name,
                shape=values.shape,
                dtype="uint8",
                chunks=(16, 16, 16, 1)[: values.ndim],
                axes="xyzc"[: values.ndim],
            ).write(..., values)
    return root


@pytest.fixture
def measured() -> Callable[[Sequence[str]], str]:
    """Runs Python with some arguments and returns the last line that it prints.

    Arrays go back to the system when they are freed, whichever thread held them: what
    counts is what is in use, not how malloc's arenas happened to be filled.
    """
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    path = {"PYTHONPATH": str(pathlib.Path(__file__).parent)}  # of peak_memory

    def run(arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | malloc | path,
        )
        return done.stdout.splitlines()[-1]

    return run


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """What `LD_PRELOAD` takes to kill a process at a file operation: `kill_at.c`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, and the library that kills by number is compiled")
    built = tmp_path_factory.mktemp("kill") / "kill_at.so"
    source = pathlib.Path(__file__).with_name("kill_at.c")
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True
    )
    return built
