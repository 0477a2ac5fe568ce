"""Kills and signals at file operations chosen by number: the same bytes in the end.

A stage is run once undisturbed, under a library that counts every operation by which it
changes a file or folder (`slow/kill_at.c`: Python's own, HDF5's, SQLite's and TensorStore's).
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
import numpy as np
import optuna
import pytest

from nisbjax.parallel import signals

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent
# Signals and the status that each leaves.
ENDS = ((signal.SIGTERM, signals.STOPPED), (signal.SIGINT, signals.INTERRUPTED))
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
        "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}",
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


def few_or_all(*cases):
    """Of each (case, few, all) two parameters: `make test-slow` takes few kills, `make test-long` all.

    A case with no few is a long one alone.
    """
    short = [pytest.param(case, few) for case, few, _ in cases if few]
    return short + [
        pytest.param(case, many, marks=pytest.mark.long) for case, _, many in cases
    ]


def launch(mode, *flags, config="configs/liconn.py"):
    config = config if isinstance(config, pathlib.Path) else ROOT / config
    head = [sys.executable, "-m", "nisbjax.launch", f"--config={config}"]
    return [*head, f"--mode={mode}", *flags]
