"""Volumes in a bucket of a server that speaks S3, as moto has it."""

import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import tensorstore as ts

from nisbjax.config import base_config
from nisbjax.convert import stage
from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store import access, places
from nisbjax.store.volume import open_labels
from tests.s3_server import ACCOUNT, BUCKET, SECRET, serving_s3

pytestmark = pytest.mark.slow

LABELS = np.random.default_rng(0).integers(0, 9, (20, 24, 16)).astype(np.uint32)


@pytest.fixture(scope="module")
def endpoint():
    pytest.importorskip("boto3")
    with serving_s3() as found:
        yield found


@pytest.fixture(autouse=True)
def settled(endpoint, monkeypatch):
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    access.settle(access.Access(endpoint=endpoint, retries=1))
    yield
    access.settle(access.Access())


def _put(key: str, values: np.ndarray) -> None:
    place = places.parse(f"s3://{BUCKET}/{key}")
    spec = places.spec_of("zarr3", place)
    layout = ts.ChunkLayout(chunk_shape=(8, 8, 8))
    ts.open(
        spec,
        create=True,
        dtype=values.dtype,
        shape=values.shape,
        chunk_layout=layout,
        context=access.context(),
    ).result()[...] = values


def test_a_pattern_finds_the_volumes_of_a_bucket():
    for seed in (2, 10):
        _put(f"nisb/train/seed{seed}/data.zarr/seg", LABELS + seed)
    found = nisb.find(f"s3://{BUCKET}/nisb", "train/seed*/data.zarr/seg")
    assert [path.split("/")[5] for path in found] == ["seed2", "seed10"]
    for path, seed in zip(found, (2, 10), strict=True):
        np.testing.assert_array_equal(open_labels(path).read(), LABELS + seed)
    with pytest.raises(InputError, match="no volume matches s3://.*/test/seed.; check"):
        nisb.find(f"s3://{BUCKET}/nisb", "test/seed*")
    with pytest.raises(InputError, match="cannot be read: .* bucket does not exist"):
        nisb.find("s3://another/nisb", "test/seed*")


def test_wrong_credentials_are_one_line(endpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("labels.npy", LABELS)
    section = base_config().convert
    section.format = "zarr2"
    _require_rights(endpoint, True)
    try:
        for act in (
            lambda: open_labels(f"s3://{BUCKET}/nisb/em"),
            lambda: nisb.find(f"s3://{BUCKET}/nisb", "train/seed*"),
            lambda: stage.run(section, "labels.npy", "s3://b12/em"),
        ):
            with pytest.raises(
                InputError, match="may not be (read|listed|written)"
            ) as caught:
                act()
            said = str(caught.value)
            assert "--config.remote.profile" in said
            assert "\n" not in said
            for word in (SECRET, *ACCOUNT.values()):
                assert word not in said
    finally:
        _require_rights(endpoint, False)


_KILLED = """
import os, signal, sys
from nisbjax.convert import sending
left, wait = [int(sys.argv.pop(1))], sending._wait
def killed(name, future):
    wait(name, future)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
sending._wait = killed
from nisbjax.__main__ import main
sys.argv[0] = "nisbjax"
main()
"""


@pytest.mark.parametrize(
    "form",
    [
        "ome-zarr-0.5",
        pytest.param("precomputed", marks=pytest.mark.long),
        pytest.param("n5", marks=pytest.mark.long),
    ],
)
def test_a_conversion_that_is_killed_goes_on(endpoint, tmp_path, form):
    np.save(tmp_path / "labels.npy", LABELS)
    keys = {"format": form, "chunks": "8,8,8", "voxel_size_nm": "8,8,8"}
    keys |= {"downsample": "1", "memory_gb": "0.00002"}
    flags = [f"--config.convert.{key}={value}" for key, value in keys.items()]
    flags += [f"--config.remote.endpoint={endpoint}"]
    there = f"s3://{BUCKET}/{form}/em"

    def run(path: str, kill_after: int = 0) -> subprocess.CompletedProcess:
        arguments = ["--mode=convert", "labels.npy", path, *flags]
        return subprocess.run(
            [sys.executable, "-c", _KILLED, str(kill_after), *arguments],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    said = ""
    for kill_after in (1, 4, 9, 14):  # of the 18 chunks and those of the pyramid
        done = run(there, kill_after)
        assert done.returncode == -signal.SIGKILL, done.stderr
        said += done.stderr + done.stdout
    done = run(there)
    assert done.returncode == 0, done.stderr
    said += done.stderr + done.stdout
    assert "sent to addresses in" in said
    assert "is there already" in run(there).stderr
    assert run("em").returncode == 0
    np.testing.assert_array_equal(open_labels(there).read(), LABELS)
    client = pytest.importorskip("boto3").client(
        "s3", endpoint_url=endpoint, region_name="us-east-1"
    )
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{form}/em/")["Contents"]
    made = {}
    for key in (each["Key"] for each in listed):
        body = client.get_object(Bucket=BUCKET, Key=key)["Body"]
        made[key.removeprefix(f"{form}/em/")] = body.read()
    wanted = {
        path.relative_to(tmp_path / "em").as_posix(): path.read_bytes()
        for path in (tmp_path / "em").rglob("*")
        if path.is_file()
    }
    assert made == wanted
    for name in (SECRET, ACCOUNT["AWS_ACCESS_KEY_ID"]):
        assert name not in said
        for path in (p for p in tmp_path.rglob("*") if p.is_file()):
            assert name.encode() not in path.read_bytes()
        assert all(name.encode() not in content for content in made.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["em", "labels.npy"]


def _require_rights(endpoint: str, wanted: bool) -> None:
    """Whether the server asks for an account, of which it has none."""
    url = f"{endpoint}/moto-api/reset-auth"
    count = b"0" if wanted else b"inf"
    plain = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(url, count, plain)).close()
