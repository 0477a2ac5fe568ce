"""launch/slurm/dask.sbatch on this machine, by an `srun` that starts plain processes."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nisbjax.decode.connected_components import label_affinities
from nisbjax.store.volume import create_zarr, open_labels

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = (128, 256, 256)
SRUN = """#!/usr/bin/env bash
tasks=1
while [[ $1 == --* ]]; do
    [[ $1 == --ntasks=* ]] && tasks=${1#*=}
    shift
done
echo "srun $tasks: $*" >> "$SRUN_LOG"
trap 'kill $(jobs -p) 2> /dev/null; wait' TERM EXIT
for ((i = 0; i < tasks; i++)); do "$@" & done
wait
"""


@pytest.fixture
def affinities(tmp_path):
    values = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    values = values.astype(np.float16)
    volume = create_zarr(
        tmp_path / "raw.zarr",
        shape=values.shape,
        dtype=np.float16,
        chunks=(1, 64, 128, 128),
        axes="cxyz",
    )
    volume.write(..., values)
    return values


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SRUN_LOG": str(tmp_path / "srun.log"),
        "PYTHON": sys.executable,
        "INTERFACE": "lo",
        "SLURM_NTASKS": "2",
        "SLURM_JOB_ID": "7",
        "TMPDIR": str(tmp_path),
    }


def submit(folder, environment, *flags):
    return subprocess.run(
        [
            "bash",
            str(ROOT / "launch/slurm/dask.sbatch"),
            str(ROOT / "configs/demo.py"),
            str(folder / "run"),
            f"--config.decode.input={folder}/raw.zarr",
            "--config.decode.affinity_mask=",
            f"--config.decode.output={folder}/labels.zarr",
            "--config.decode.method=affinity_cc",
            "--config.decode.threshold=0.7",
            "--config.decode.memory_gb=0.06",
            *flags,
        ],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )


def tls(folder):
    """A certificate of our own, and Dask's configuration for it (docs/scaling.md)."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-subj", "/CN=nisbjax", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    prefix = "DASK_DISTRIBUTED__COMM__"
    found = {f"{prefix}REQUIRE_ENCRYPTION": "True"}
    found[f"{prefix}TLS__CA_FILE"] = str(cert)
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        found[f"{prefix}TLS__{role}__CERT"] = str(cert)
        found[f"{prefix}TLS__{role}__KEY"] = str(key)
    return found | {"PROTOCOL": "tls"}


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_a_scheduler_and_two_workers_decode(
    affinities, environment, tmp_path, protocol
):
    pytest.importorskip("distributed")
    if protocol == "tls":
        if shutil.which("openssl") is None:
            pytest.skip("openssl makes the certificate")
        environment |= tls(tmp_path)
    done = submit(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    volume = open_labels(tmp_path / "labels.zarr")
    np.testing.assert_array_equal(volume.read(), label_affinities(affinities, 0.7))
    assert re.search(rf"Scheduler at: +{protocol}://127.0.0.1:", done.stderr)
    assert re.search("dashboard at: +http://127.0.0.1:", done.stderr)
    started = (tmp_path / "srun.log").read_text().splitlines()
    assert [line.split(":")[0] for line in started] == ["srun 1", "srun 2"]
    assert not list((tmp_path / "run").glob("scheduler-*"))


def test_what_is_missing_is_named(environment, tmp_path):
    del environment["INTERFACE"]
    done = submit(tmp_path, environment)
    assert done.returncode != 0
    assert "name the network of the nodes" in done.stderr
