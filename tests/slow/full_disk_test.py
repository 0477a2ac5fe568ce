"""Every mode on a disk that fills, or is read-only: one line, then the same bytes.

A tmpfs stands for the disk, so this needs root. Stages without JAX run as commands; the
others in this process with a linear network, each at several amounts of free space.
"""

import math
import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import h5py
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from safetensors.numpy import load_file

from nisbjax import launch
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import base_config
from nisbjax.models import build
from nisbjax.models.foreign import torch_export
from nisbjax.modes import outside
from nisbjax.store.volume import create_zarr

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"--config={ROOT / 'configs' / 'demo.py'}"
SIZE = 64
REPORT = """---
img: {inputs}/image.zarr
out: mask.h5
low_z: 2
high_z: 60
bg_thresh: 100
border_width: 20
---
"""

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
            "--config.decode.method=affinity_cc",
            "--config.decode.threshold=0.8",
        ),
        "qc": (
            f"--config.qc.input={inputs}/raw.zarr",
            f"--config.qc.report={out}/report.md",
        ),
        "mask": (
            f"--config.mask.report={out}/report.md",
            f"--config.mask.output={out}/mask.h5",
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
    """What a stage wrote, without its paths; not what names the time."""
    return {
        str(path.relative_to(folder)): _stored(path).replace(
            str(folder).encode(), b"FOLDER"
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix not in (".json", ".txt")
    }


def _stored(path):
    if path.suffix != ".h5":
        return path.read_bytes()
    with h5py.File(path) as file:  # its attributes hold paths of other lengths
        return file["main"][:].tobytes()


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """Function of a mode to the folder that it leaves where there is room."""
    folders = {}

    def of(mode):
        if mode not in folders:
            folders[mode] = tmp_path_factory.mktemp(mode)
            prepare(mode, inputs, folders[mode])
            assert run(mode, inputs, folders[mode]) == (0, [])
        return folders[mode]

    return of


def prepare(mode, inputs, folder):
    """What a stage needs beside its output."""
    if mode == "evaluate":
        shutil.copytree(inputs / "labels.zarr", folder / "labels.zarr")
    if mode == "mask":
        (folder / "report.md").write_text(REPORT.format(inputs=inputs))


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


@pytest.mark.parametrize("trouble", ["ro", 0.0, 0.4, 0.8])
@pytest.mark.parametrize("mode", ["decode", "qc", "mask", "evaluate"])
def test_a_stage_ends_with_one_line_and_goes_on(
    inputs, undisturbed, disk, mode, trouble
):
    """`trouble` is the share of the room it takes that a stage has, or a read-only disk."""
    place = disk("size=60m")
    prepare(mode, inputs, place)
    filling = place / "filling"
    if trouble == "ro":
        disk("ro")
    else:
        page = os.sysconf("SC_PAGESIZE")
        pages = [-(-p.stat().st_size // page) for p in undisturbed(mode).rglob("*")]
        held = [-(-p.stat().st_size // page) for p in place.rglob("*")]
        used = sum(pages) - sum(held)
        room = os.statvfs(place)
        left = page * math.floor(trouble * used)
        with open(filling, "wb") as file:
            file.write(bytes(room.f_bavail * room.f_frsize - left))
    status, lines = run(mode, inputs, place)
    assert status == 2 and len(lines) == 1, lines
    said = "Read-only file system" if trouble == "ro" else "No space left on device"
    assert said in lines[0]
    if trouble == "ro":
        disk("rw")
    else:
        filling.unlink()
    assert run(mode, inputs, place) == (0, [])
    assert content(place) == content(undisturbed(mode))


@pytest.fixture
def run_folder(tmp_path):
    """A run with one checkpoint of the linear network, and its two volumes of 32^3."""
    folder = tmp_path / "run"
    draw = np.random.default_rng(0)
    for volume in ("val/seed5", "test/seed6"):
        image = draw.integers(0, 255, (32, 32, 32, 1), np.uint8)
        path = folder / "data" / volume / "data.zarr/img"
        shape = image.shape
        create_zarr(path, shape=shape, dtype="uint8", chunks=shape, axes="xyzc").write(
            ..., image
        )
        graph = nx.Graph()
        for x in range(32):
            at = {"index_position": (x, 4, 4), "nm_position": (9.0 * x, 36.0, 48.0)}
            graph.add_node(x, id=1 + (volume == "test/seed6"), **at)
        graph.add_edges_from((x, x + 1) for x in range(31))
        skeleton = folder / "data" / volume / "skeleton.pkl"
        skeleton.write_bytes(pickle.dumps(graph))
    config = config_of(folder)
    kept = Checkpoints(folder / "checkpoints", best=0, every=1)
    head = {"weight": 4 * jnp.ones((1, 3)), "bias": -2 * jnp.ones(3)}
    params = {"head": head, "norm": {"weight": jnp.ones(3)}}
    arrays = {"params": params, "ema": params, "optimizer": {"w": jnp.ones(1)}}
    facts = {"step": {}, "loader": {}, "config": {}}
    facts["model"] = build.describe(config.model.to_dict())
    kept.save(20, arrays, facts)
    kept.close()
    return folder


def config_of(folder):
    c = base_config()
    c.data.root = str(folder / "data")
    c.data.offsets = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    c.model.out_channels = 3
    c.model.channels, c.model.size = 2, "S"
    c.predict.window = (32, 32, 32)
    c.predict.batch_per_device = 1
    c.qc.border_width = 4
    c.decode.method = "affinity_cc"
    c.decode.threshold = 0.5
    c.decode.affinity_mask = ""
    c.tune.thresholds = (0.4, 0.5)
    c.synth.shape = (32, 32, 32)
    c.synth.volumes = ("val/seed5", "test/seed6")
    return c


# Names of files that hold a time, a path, what a library draws by chance, or each attempt.
_OTHER = (
    ".manifest.jsonl",
    ".db",
    ".png",
    ".md",
    "eval_",
    "nerl.",
    "events.out",
    "best_params",
    ".h5",
)


def stored(folder):
    """Bytes of a run's arrays and weights, by name."""
    return {
        name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for name in [str(path.relative_to(folder))]
        if not any(word in name for word in (*_OTHER, "checkpoints/", "command.txt"))
    }


# How much of the room that a mode takes it has at first; opened, manifest, data, end.
SHARES = {
    "predict": (0.0, 0.1, 0.5, 0.9),
    "test": (0.3, 0.8),
    "tune": (0.2, 0.6),
    "validate": (0.5,),
    "synth": (0.0, 0.5),
}


@pytest.mark.usefixtures("linear_network")
@pytest.mark.parametrize("mode", SHARES)
def test_a_mode_goes_on_where_the_disk_was_full(run_folder, disk, mode):
    place = disk("size=60m")

    def begin():
        if mode == "synth":  # it makes the data
            (place / "run").mkdir()
        else:
            shutil.copytree(run_folder, place / "run")

    fails_and_goes_on(place, mode, begin, shares=SHARES[mode])


@pytest.fixture
def foreign(tmp_path):
    """A file of the smallest MedNeXt."""
    path = tmp_path / "weights.safetensors"
    config = config_of(tmp_path)
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: draw.normal(size=leaf.shape).astype(np.float32),
        build.abstract_params(config.model.to_dict()),
    )
    torch_export.write_safetensors(path, torch_export.state_dict(params), {})
    return path


def test_import_and_export_go_on_where_the_disk_was_full(foreign, disk, tmp_path):
    place = disk("size=60m")
    (place / "run").mkdir()
    fails_and_goes_on(
        place, "import", (place / "run").mkdir, shares=(0.0, 0.5), checkpoint=foreign
    )
    (place / "run").rename(place / "imported")
    made = place / "imported" / "checkpoints" / "0"
    assert not [p for p in made.parent.iterdir() if p.name != "0"]
    fails_and_goes_on(
        place, "export", (place / "run").mkdir, shares=(0.0, 0.5), checkpoint=made
    )
    (found,) = (place / "run").glob("*.safetensors")
    exported = load_file(found)
    for name, values in load_file(foreign).items():
        np.testing.assert_array_equal(exported[name], values)


def fails_and_goes_on(place, mode, begin, *, shares, checkpoint=""):
    """Runs a mode with room, then with some of that room, and again with all of it."""
    run_dir, filling = place / "run", place / "filling"

    def room():
        free = os.statvfs(place)
        return free.f_bavail * free.f_frsize

    def work():
        config = config_of(run_dir)
        launch.run_mode(mode, config, str(run_dir), str(checkpoint))

    def again():
        shutil.rmtree(run_dir, ignore_errors=True)
        begin()

    again()
    before = room()
    work()
    used, undisturbed = before - room(), stored(run_dir)
    assert used > 0
    for share in shares:
        again()
        filling.write_bytes(bytes(math.floor(room() - share * used)))
        with pytest.raises(Exception) as caught:
            work()
        line = outside.explain(caught.value)
        assert line is not None and "\n" not in line, caught.value
        assert "No space left on device" in line or "the disk is full" in line, line
        assert str(run_dir) in line
        filling.unlink()
        work()
        found = stored(run_dir)
        assert found.keys() == undisturbed.keys(), share
        assert [k for k in found if found[k] != undisturbed[k]] == [], share
