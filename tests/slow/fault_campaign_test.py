"""Kills and signals at file operations chosen by number, over all stages: the same bytes.

A stage is run once undisturbed, under a library that counts every operation by which it
changes a file or folder (`kill_at.c`: Python's own, HDF5's, SQLite's and TensorStore's).
Then it is killed at operations drawn from that count, before them or in the middle of a
write, and started again: the folder must hold what the undisturbed run left, no more. SIGTERM
and SIGINT besides end it with their status and one line.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import pickle
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable

import h5py
import jax
import networkx as nx
import numpy as np
import optuna
import pytest

from nisbjax.parallel import signals
from nisbjax.store.volume import create_zarr

pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
TINY = HERE / "tiny_config.py"
SHAPE = (40, 24, 24)
# Written by the clock, by the order of threads, or compared in another way below.
_VOLATILE = re.compile(
    r"(\.manifest\.jsonl$|command\.txt$|\.db$|\.journal$|environment\.json$)"
)
# Orbax draws names for its files, TensorBoard takes them from the clock.
_CHECKPOINT = re.compile(r"checkpoints/\d+$")
_UNNAMED = re.compile(r"events\.out|^checkpoints/\d+/")
_TIMES = re.compile(
    rb'(?i)("?(timestamp|seconds|since)"?: *"?)[^",\n]*'
    rb'|"(time|memory)/[a-z_]*": [^,}]*'
    # Fingerprints depend on the paths in attributes; the bytes themselves are compared.
    rb"|[0-9a-f]{64}"
    rb"|(?<=,)[0-9]+\.[0-9](?=\r\n)"  # seconds, the last column of validate's table
)


@dataclasses.dataclass(frozen=True)
class Shot:
    """One start of a stage: how it ended and how many file operations it did."""

    status: int
    operations: int
    said: str


def shoot(library, command, folder, at=0, torn=False, sent=signal.SIGKILL) -> Shot:
    counter = folder.with_name(folder.name + ".count")
    counter.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "KILL_AT_ROOT": str(folder),
        "KILL_AT_COUNT": str(counter),
        "KILL_AT": str(at),
        "KILL_AT_SIGNAL": str(int(sent)),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "PYTHONPATH": str(ROOT),
    }
    if torn:
        environment["KILL_AT_TORN"] = "1"
    done = subprocess.run(  # noqa: PLW1510 (a kill is no error here)
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    (operations,) = struct.unpack("q", counter.read_bytes()[:8])
    return Shot(done.returncode, operations, done.stderr[-2000:])


def content(folder: pathlib.Path, root: pathlib.Path) -> dict[str, bytes]:
    """Every file by its path below a folder, without what the clock decides."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _CHECKPOINT.match(name):
            found[name] = weights(path)
        elif _UNNAMED.search(name):
            pass
        elif path.is_dir():
            found[name + "/"] = b""
        elif _VOLATILE.search(name):
            found[name] = (
                b"" if not name.endswith((".db", ".journal")) else trials(path)
            )
        else:
            data = of_hdf5(path) if path.suffix == ".h5" else path.read_bytes()
            data = data.replace(str(root).encode(), b"ROOT")
            found[name] = _TIMES.sub(rb"\1", data)
    return found


def weights(checkpoint_folder: pathlib.Path) -> bytes:
    """Of a sound checkpoint, raw and averaged."""
    from nisbjax.checkpoint import checkpoint, restore
    from nisbjax.models import build

    assert checkpoint.problem_of(checkpoint_folder) == ""
    like = build.abstract_params(checkpoint.describe(checkpoint_folder))
    leaves = [
        np.asarray(leaf).tobytes()
        for which in ("raw", "ema")
        for leaf in jax.tree.leaves(restore.weights(checkpoint_folder, which, like))
    ]
    return hashlib.sha256(b"".join(leaves)).digest()


def of_hdf5(path: pathlib.Path) -> bytes:
    """Values and attributes: HDF5 has checksums of its own over the paths in them."""
    with h5py.File(path) as file:
        main = file["main"]
        facts = repr(sorted((k, str(v)) for k, v in main.attrs.items()))
        return f"{main.dtype} {main.shape} {main.chunks} {facts}".encode() + bytes(
            main[...].tobytes()
        )


def trials(path: pathlib.Path) -> bytes:
    """Parameters and values of a study's finished trials."""
    from nisbjax.tune import storage

    backend = (
        optuna.storages.RDBStorage(f"sqlite:///{path}")
        if path.suffix == ".db"
        else optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(path))
        )
    )
    del storage
    (name,) = optuna.get_all_study_names(backend)
    study = optuna.load_study(study_name=name, storage=backend)
    done = sorted(
        (sorted(t.params.items()), t.value)
        for t in study.trials
        if t.state == optuna.trial.TrialState.COMPLETE
    )
    if isinstance(backend, optuna.storages.RDBStorage):
        backend.remove_session()
        backend.engine.dispose()
    return json.dumps(done).encode()


def campaign(
    library,
    template,
    command: Callable[[pathlib.Path], list[str]],
    kills,
    ends=((signal.SIGKILL, -signal.SIGKILL),),
):
    """Ends a stage and starts it again; returns the numbers that were tried.

    `ends` are signals and the status that each leaves, taken in turns.
    """
    whole = template.with_name(template.name + "_whole")
    # The name of the folder is part of some files: each attempt has one of equal length.
    shutil.copytree(template, whole / "run")
    first = shoot(library, command(whole / "run"), whole / "run")
    assert first.status == 0, first.said
    assert first.operations > 0
    wanted = content(whole / "run", whole / "run")
    draw = random.Random(template.name)
    count = min(kills, first.operations)
    numbers = sorted(draw.sample(range(1, first.operations + 1), count))

    def attempt(turn: int) -> None:
        number, (sent, status) = numbers[turn], ends[turn % len(ends)]
        folder = template.with_name(f"{template.name}_{number:05d}") / "run"
        shutil.copytree(template, folder)
        killed = shoot(library, command(folder), folder, number, bool(number % 2), sent)
        # Threads and libraries do not always do the same number of operations.
        assert killed.status in (status, 0), (number, killed.said)
        assert "Traceback" not in killed.said, (number, killed.said)
        again = shoot(library, command(folder), folder)
        assert again.status == 0, (number, again.said)
        found = content(folder, folder)
        # A training saves when it is stopped, and that may be among its best.
        surplus = [n for n in found if n not in wanted and not _CHECKPOINT.match(n)]
        assert wanted.keys() <= found.keys() and not surplus, (number, surplus)
        differing = [name for name in wanted if found[name] != wanted[name]]
        assert not differing, {
            n: (found[n][-300:], wanted[n][-300:]) for n in differing
        }
        shutil.rmtree(folder.parent)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(attempt, range(count)))
    return numbers


def launch(mode, *flags, config="configs/liconn.py"):
    config = config if isinstance(config, pathlib.Path) else ROOT / config
    head = [sys.executable, "-m", "nisbjax.launch", f"--config={config}"]
    return [*head, f"--mode={mode}", *flags]


@pytest.fixture
def files(tmp_path):
    """An image, affinities, their skeleton and a configuration's flags."""
    folder = tmp_path / "case"
    folder.mkdir()
    rng = np.random.default_rng(0)
    segments = 1 + (np.arange(SHAPE[0]) // 14)[:, None, None]
    affinities = np.where(rng.random((3, *SHAPE)) < 0.9, 0.9, 0.3).astype(np.float16)
    affinities[0, 13::14] = 0.05  # the planes between segments of 14 planes
    image = rng.integers(60, 200, (*SHAPE, 1), np.uint8)
    for name, values, axes in (
        ("raw.zarr", affinities, "cxyz"),
        ("img.zarr", image, "xyzc"),
    ):
        spatial = tuple(16 if a in "xyz" else n for a, n in zip(axes, values.shape))
        create_zarr(
            folder / name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=spatial,
            axes=axes,
        ).write(..., values)
    graph = nx.Graph()
    for x in range(SHAPE[0]):
        where = (x, 3, 3)
        nm = (9.0 * x, 27.0, 36.0)
        graph.add_node(
            x, id=int(segments[x, 0, 0]), index_position=where, nm_position=nm
        )
        if x and segments[x] == segments[x - 1]:
            graph.add_edge(x - 1, x)
    (folder / "skeleton.pkl").write_bytes(pickle.dumps(graph))
    return folder


QC = ("--config.qc.border_width=4", "--config.qc.z_stride=2", "--config.qc.k_edge=2")


def qc(folder):
    flags = (
        f"--config.qc.input={folder}/raw.zarr",
        f"--config.qc.image={folder}/img.zarr",
    )
    return launch("qc", *flags, *QC)


def mask(folder):
    report = folder / "check_aff_report.md"
    if not report.exists():
        subprocess.run(qc(folder), cwd=ROOT, check=True, capture_output=True)
    output = f"--config.mask.output={folder}/affinity_mask.h5"
    return launch("mask", f"--config.mask.report={report}", output)


def decode(folder):
    """In boxes of one chunk, under a mask."""
    return launch(
        "decode",
        f"--config.decode.input={folder}/raw.zarr",
        f"--config.decode.output={folder}/seg.zarr",
        f"--config.qc.image={folder}/img.zarr",
        "--config.decode.method=affinity_cc",
        "--config.decode.threshold=0.5",
        "--config.decode.memory_gb=0.0005",
        *QC,
    )


def grow(folder):
    return launch(
        "decode",
        f"--config.decode.input={folder}/raw.zarr",
        f"--config.decode.output={folder}/seg.zarr",
        "--config.decode.affinity_mask=",
        "--config.decode.method=grow",
        "--config.decode.threshold=0.8",
        "--config.decode.low_threshold=0.2",
        "--config.decode.min_seed=10",
    )


CHAIN = """
import pathlib, sys
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.store.lock import writing
from nisbjax.store.volume import create_zarr, open_affinities

folder = pathlib.Path(sys.argv[1])
affinities = open_affinities(folder / "six.zarr")
path = folder / "seg.zarr"
with writing(path):
    output = create_zarr(
        path,
        shape=affinities.spatial_shape,
        dtype="uint32",
        chunks=(16, 16, 16),
        axes="xyz",
    )
    chain_volume(
        affinities,
        output,
        parameters=ChainParameters(anchor=5, low=0.3),
        memory_gb=0.1,
        schedule=Schedule(box_shape=(20, 12, 24)),
    )
"""


def chain(folder):
    """In 2 x 2 boxes that share chunks of the output."""
    six = folder / "six.zarr"
    if not six.exists():
        values = np.random.default_rng(1).random((6, *SHAPE)) * 0.6 + 0.35
        create_zarr(
            six,
            shape=values.shape,
            dtype="float16",
            chunks=(1, 16, 16, 16),
            axes="cxyz",
        ).write(..., values.astype(np.float16))
    return [sys.executable, "-c", CHAIN, str(folder)]


def evaluate(folder):
    labels = folder / "labels.npy"
    if not labels.exists():
        planes = 1 + (np.arange(SHAPE[0]) // 14).astype(np.uint32)
        np.save(labels, np.broadcast_to(planes[:, None, None], SHAPE))
    return launch(
        "evaluate",
        f"--config.evaluate.segmentation={labels}",
        f"--config.evaluate.skeleton={folder}/skeleton.pkl",
    )


TUNE = """
import pathlib, sys
from nisbjax import artifacts, config
from nisbjax.evaluate.truth import Truth
from nisbjax.keys import determines
from nisbjax.tune import stage
from nisbjax.tune.inputs import Inputs

folder = pathlib.Path(sys.argv[1])
settings = config.base_config()
settings.tune.thresholds = (0.4, 0.6, 0.8)
settings.tune.storage = str(folder / sys.argv[2])
inputs = Inputs(
    str(folder / "raw.zarr"),
    Truth(str(folder / "skeleton.pkl"), "", (9.0, 9.0, 12.0)),
    determines.facts(settings, "study"),
)
out = artifacts.Run(folder).tune(1)
stage.run(settings.tune, settings.decode, out, inputs, seed=settings.seed)
"""


def tune(folder):
    return [sys.executable, "-c", TUNE, str(folder), "study.db"]


def tune_by_journal(folder):
    return [sys.executable, "-c", TUNE, str(folder), "study.journal"]


@pytest.mark.parametrize(
    "stage", [qc, mask, decode, grow, chain, evaluate, tune, tune_by_journal]
)
def test_killed_stages_end_as_the_undisturbed_one(files, library, stage):
    """Stages that need no network, on files of other programs."""
    stage(files)  # what it needs is made before the copies
    campaign(library, files, stage, kills=8)


ENDS = ((signal.SIGTERM, signals.STOPPED), (signal.SIGINT, signals.INTERRUPTED))


@pytest.mark.parametrize("stage", [qc, mask, decode, grow, evaluate])
def test_a_signal_ends_a_stage_in_order(files, library, stage):
    stage(files)
    campaign(library, files, stage, kills=4, ends=ENDS)


def tiny(mode, folder, *flags):
    data = f"--config.data.root={folder / 'data'}"
    return launch(mode, f"--workdir={folder}", data, *flags, config=TINY)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three steps, with its made data; nothing predicted yet."""
    folder = tmp_path_factory.mktemp("trained") / "case"
    for mode in ("synth", "train"):
        command = launch(mode, f"--workdir={folder}", config=TINY)
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("name", "kills"),
    [("synth", 4), ("train", 6), ("predict", 5), ("tune-test", 5), ("validate", 3)],
)
def test_killed_modes_end_as_the_undisturbed_one(
    trained, tmp_path, library, name, kills
):
    """Modes with a network, on made data: locks, journals and checkpoints among them."""
    campaign(library, *_mode(trained, tmp_path, name), kills)


@pytest.mark.parametrize(
    ("name", "count"),
    [("synth", 4), ("train", 4), ("predict", 2), ("tune-test", 2), ("validate", 2)],
)
def test_a_signal_ends_a_mode_in_order(trained, tmp_path, library, name, count):
    campaign(library, *_mode(trained, tmp_path, name), count, ENDS)


def _mode(trained, tmp_path, name):
    """A folder to begin with, and the command of a mode there."""
    template = tmp_path / name
    if name == "synth":
        template.mkdir()
        command = lambda folder: launch(name, f"--workdir={folder}", config=TINY)
    else:
        shutil.copytree(trained, template)
        command = lambda folder: tiny(name, folder)
    if name == "train":
        shutil.rmtree(template / "checkpoints")
        shutil.rmtree(template / "logs")
    return template, command
