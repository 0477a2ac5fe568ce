"""Volumes at addresses, served by a web server of this machine."""

import pickle

import numpy as np
import pytest
import tensorstore as ts

from nisbjax import skeletons
from nisbjax.data import nisb
from nisbjax.errors import InputError
from nisbjax.store import access, places
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.formats import is_there
from nisbjax.store.volume import open_image, open_labels, open_volume
from tests.web_server import serving

IMAGE = np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8)
_PRECOMPUTED = {
    "multiscale_metadata": {"data_type": "uint16", "num_channels": 1, "type": "image"},
    "scale_metadata": {
        "size": IMAGE.shape,
        "resolution": [8, 8, 40],
        "encoding": "raw",
        "chunk_size": [4, 4, 4],
        "key": "8_8_40",
    },
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a folder with IMAGE in each format, and what was asked of it."""
    folder = tmp_path_factory.mktemp("served")
    for driver in ("zarr", "zarr3", "n5"):
        path = folder / ("group/s0" if driver == "n5" else driver)
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
        layout = ts.ChunkLayout(chunk_shape=(4, 4, 4))
        ts.open(
            spec, create=True, dtype=ts.uint16, shape=IMAGE.shape, chunk_layout=layout
        ).result()[...] = IMAGE
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder}/precomputed/"},
        **_PRECOMPUTED,
    }
    ts.open(spec, create=True).result()[..., 0] = IMAGE
    (folder / "ome.zarr").mkdir()
    (folder / "zarr").rename(folder / "ome.zarr/0")
    (folder / "ome.zarr/.zattrs").write_text(
        '{"multiscales": [{"version": "0.4", "axes": ['
        '{"name": "z", "type": "space", "unit": "nanometer"},'
        '{"name": "y", "type": "space", "unit": "nanometer"},'
        '{"name": "x", "type": "space", "unit": "nanometer"}], "datasets": [{"path": "0",'
        '"coordinateTransformations": [{"type": "scale", "scale": [40, 8, 4]}]}]}]}'
    )
    with serving(folder) as found:
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Faults are told at once."""
    monkeypatch.setattr(access, "_FIRST_DELAY", "1ms")
    access.settle(access.Access(timeout_s=1, retries=1))
    yield
    access.settle(access.Access())


@pytest.mark.parametrize(
    "name", ["zarr3", "group", "precomputed", "precomputed/8_8_40"]
)
def test_volumes_are_read_where_they_lie(served, name):
    volume = open_labels(f"{served[0]}/{name}")
    np.testing.assert_array_equal(volume.read(), IMAGE)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(volume.store)).read().result(), IMAGE
    )
    assert volume.source.startswith(f"{served[0]}/{name.split('/')[0]}")
    assert is_there(f"{served[0]}/{name}")


def test_a_group_of_ome_zarr_says_its_axes_and_voxels(served):
    volume = open_image(f"{served[0]}/ome.zarr")
    np.testing.assert_array_equal(volume.read()[..., 0], IMAGE.transpose(2, 1, 0))
    assert volume.attributes["voxel_size_nm"] == [4, 8, 40]  # of z y x 40 8 4
    assert volume.source == f"{served[0]}/ome.zarr/0"
    turned = open_volume(f"{served[0]}/zarr3#zyx", axes="xyz")
    np.testing.assert_array_equal(turned.read(), IMAGE.transpose(2, 1, 0))


def test_crops_are_drawn_from_a_root_at_an_address(served):
    (pair,) = nisb.open_pairs(served[0], "zarr3", "precomputed")
    np.testing.assert_array_equal(pair.image.read()[..., 0], pair.labels.read())
    both = nisb.find(served[0], "zarr3,group")
    assert both == [f"{served[0]}/zarr3", f"{served[0]}/group"]
    with pytest.raises(InputError, match="is a pattern, and web servers are not li"):
        nisb.find(served[0], "seed*/img")


def test_a_chunk_is_fetched_once(served):
    path = f"{served[0]}/zarr3"
    before = access.fetched()
    for _ in range(3):
        open_labels(path).read()
    chunks = [asked for asked in served[1] if asked == "/zarr3/c/1/1/1"]
    access.settle(access.Access(cache_gb=0.0))
    volume = open_labels(path)
    for _ in range(2):
        volume.read()
    again = [asked for asked in served[1] if asked == "/zarr3/c/1/1/1"]
    assert len(again) - len(chunks) == 2
    size, requests = access.fetched()
    assert size > before[0]
    assert requests > before[1]


def test_a_fingerprint_is_of_the_metadata_and_chunks(served):
    one = fingerprint(f"{served[0]}/zarr3")
    assert one == fingerprint(f"{served[0]}/zarr3")
    assert one != fingerprint(f"{served[0]}/zarr3#zyx")
    assert one != fingerprint(f"{served[0]}/group")


@pytest.mark.parametrize(
    "path, line",
    [
        ("nothing", "no volume at http.*/nothing; check the path"),
        ("precomputed/9", "precomputed has no scale 9; it has 8_8_40"),
        (
            "403/em",
            "403/em/.*: it may not be read .*403.*; name the account by --config",
        ),
        (
            "503/em",
            "it cannot be reached .*All 1 retry attempts failed.*503.*run it aga",
        ),
        ("cut/em", "cut/em/.*: it cannot be reached .*999 bytes missing"),
    ],
)
def test_what_cannot_be_read_is_one_line(served, path, line):
    with pytest.raises(InputError, match=line) as caught:
        open_image(f"{served[0]}/{path}")
    assert "\n" not in str(caught.value)


def test_nobody_there():
    with pytest.raises(InputError, match="http://127.0.0.1:9/em.*it cannot be reached"):
        open_image("http://127.0.0.1:9/em")


def test_a_chunk_that_cannot_be_read(served):
    access.settle(access.Access(cache_gb=0.0, retries=0))
    volume = open_labels(f"{served[0]}/zarr3")
    broken = volume.store.spec().to_json()
    broken["kvstore"]["path"] = "/503/"
    store = ts.open(broken, context=access.context(), open=True, assume_metadata=True)
    with pytest.raises(InputError, match="zarr3: it cannot be reached"):
        volume.view(store.result()).read()


def test_skeletons_are_fetched_whole(served, tmp_path):
    path = f"{served[0]}/none/skeleton.pkl"
    assert not skeletons.is_there(path)
    with pytest.raises(InputError, match=f"no skeleton file at {path}"):
        skeletons.load(path)
    with pytest.raises(InputError, match="403/skeleton.pkl: it may not be read"):
        skeletons.is_there(f"{served[0]}/403/skeleton.pkl")


def test_endpoints():
    for endpoint, line in (
        ("http://me:secret@h", "has a user or password"),
        ("h:9000", "remote.endpoint is h:9000; wanted http://host:port"),
    ):
        with pytest.raises(InputError, match=line) as caught:
            access.settle(access.Access(endpoint=endpoint))
        assert "secret" not in str(caught.value)
    access.settle(access.Access(endpoint="http://h:9000/", anonymous=True))
    assert places.kvstore_of(places.parse("s3://b/em")) == {
        "driver": "s3",
        "bucket": "b",
        "path": "em/",
        "endpoint": "http://h:9000",
        "aws_region": "us-east-1",
    }
    assert places.kvstore_of(places.parse("gs://b/em"))["driver"] == "gcs"
