"""Every stage without JAX on a disk that fills or is read-only: one line, then the same bytes.

A tmpfs stands for the disk, so this needs root.
"""

import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest

from nisbjax.store.volume import create_zarr

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"--config={ROOT / 'configs' / 'demo.py'}"
SIZE = 64

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Random affinities and image of 64^3, labels that are stripes, a skeleton along x."""
    folder = tmp_path_factory.mktemp("inputs")
    draw = np.random.default_rng(0)
    raw = draw.random((3, SIZE, SIZE, SIZE)).astype(np.float16)
    image = draw.integers(0, 255, (SIZE, SIZE, SIZE), np.uint8)
    labels = np.arange(1, SIZE + 1, dtype=np.uint32)[:, None, None]
    labels = np.broadcast_to(labels, (SIZE,) * 3)
    for name, values in (("raw", raw), ("image", image), ("labels", labels)):
        axes = "cxyz" if values.ndim == 4 else "xyz"
        create_zarr(
            folder / f"{name}.zarr",
            shape=values.shape,
            dtype=values.dtype,
            chunks=values.shape,
            axes=axes,
        ).write(..., values)
    graph = nx.Graph()
    for x in range(SIZE):
        place = {"index_position": (x, 4, 4), "nm_position": (9.0 * x, 36.0, 48.0)}
        graph.add_node(x, id=1, **place)
    graph.add_edges_from((x, x + 1) for x in range(SIZE - 1))
    (folder / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    return folder


def arguments(mode, inputs, out):
    """Flags of one stage that writes below `out`, and the file to compare."""
    flags = {
        "decode": (
            f"--config.decode.input={inputs}/raw.zarr",
            f"--config.decode.output={out}/labels.zarr",
            "--config.decode.affinity_mask=",
            "--config.decode.threshold=0.8",
        ),
        "qc": (
            f"--config.qc.input={inputs}/raw.zarr",
            f"--config.qc.report={out}/report.md",
        ),
        "evaluate": (
            f"--config.evaluate.segmentation={out}/labels.zarr",
            f"--config.evaluate.skeleton={inputs}/skeleton.pkl",
        ),
    }[mode]
    return [CONFIG, f"--mode={mode}", *flags]


def run(mode, inputs, out):
    done = subprocess.run(
        [sys.executable, "-m", "nisbjax.launch", *arguments(mode, inputs, out)],
        check=False,
        capture_output=True,
        text=True,
        cwd=out,
        timeout=300,
        env={**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
    )
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    lines = [x for x in done.stderr.splitlines() if x.startswith("nisbjax: ")]
    return done.returncode, lines


def content(folder):
    """Stored bytes of what a stage wrote; not what names the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "labels.zarr/" in str(path) and path.name[0].isdigit()
    }


@pytest.fixture
def disk(tmp_path):
    """A disk of a size that can be changed: `disk(size)` and `disk("ro")` mount it again."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    subprocess.run(mount, check=True)

    def change(options):
        again = ["mount", "-o", f"remount,{options}", str(place)]
        subprocess.run(again, check=True)
        return place

    yield change
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("trouble", ["full", "ro"])
@pytest.mark.parametrize("mode", ["decode", "qc", "evaluate"])
def test_a_stage_ends_with_one_line_and_goes_on(inputs, disk, tmp_path, mode, trouble):
    place = disk("size=60m")
    if mode == "evaluate":
        shutil.copytree(inputs / "labels.zarr", place / "labels.zarr")
    filling = place / "filling"
    if trouble == "full":
        room = os.statvfs(place)
        with open(filling, "wb") as file:
            file.write(bytes(room.f_bavail * room.f_frsize - 8192))
    else:
        disk("ro")
    status, lines = run(mode, inputs, place)
    assert status == 2 and len(lines) == 1, lines
    said = "No space left on device" if trouble == "full" else "Read-only file system"
    assert said in lines[0]
    if trouble == "full":
        filling.unlink()
    else:
        disk("rw")
    assert run(mode, inputs, place) == (0, [])
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    if mode == "evaluate":
        shutil.copytree(inputs / "labels.zarr", undisturbed / "labels.zarr")
    assert run(mode, inputs, undisturbed) == (0, [])
    assert content(place) == content(undisturbed)
    assert sorted(p.name for p in place.iterdir()) == sorted(
        p.name for p in undisturbed.iterdir()
    )
