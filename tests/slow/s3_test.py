"""Volumes in a bucket of a server that speaks S3, as moto has it."""

import urllib.request

import numpy as np
import pytest
import tensorstore as ts

from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store import access, places
from nisbjax.store.volume import open_labels
from tests.s3_server import ACCOUNT, BUCKET, SECRET, serving_s3

pytestmark = pytest.mark.slow

LABELS = np.random.default_rng(0).integers(0, 9, (20, 24, 16)).astype(np.uint32)


@pytest.fixture(scope="module")
def endpoint():
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


def test_wrong_credentials_are_one_line(endpoint):
    _require_rights(endpoint, True)
    try:
        for act in (
            lambda: open_labels(f"s3://{BUCKET}/nisb/em"),
            lambda: nisb.find(f"s3://{BUCKET}/nisb", "train/seed*"),
        ):
            with pytest.raises(
                InputError, match="may not be (read|listed) .*"
            ) as caught:
                act()
            said = str(caught.value)
            assert "--config.remote.profile" in said
            assert "\n" not in said
            for word in (SECRET, *ACCOUNT.values()):
                assert word not in said
    finally:
        _require_rights(endpoint, False)


def _require_rights(endpoint: str, wanted: bool) -> None:
    """Whether the server asks for an account, of which it has none."""
    url = f"{endpoint}/moto-api/reset-auth"
    count = b"0" if wanted else b"inf"
    plain = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(url, count, plain)).close()
