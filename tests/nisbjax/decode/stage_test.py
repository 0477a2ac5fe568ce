import json
import os

import h5py
import ml_collections
import numpy as np
import pytest

from nisbjax.config import base_config
from nisbjax.decode import stage
from nisbjax.decode.chain import ChainParameters, chain_affinities
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.contested_growth import contested_growth
from nisbjax.decode.grow import grow_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex import mutex_affinities
from nisbjax.decode.plan import Decoding
from nisbjax.errors import InputError
from nisbjax.keys import determines
from nisbjax.mask import MaskSpec, open_mask
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.manifest_lines import path_inside
from nisbjax.store.volume import create_zarr, open_labels

SHAPE = (12, 10, 9)


@pytest.fixture
def config() -> ml_collections.ConfigDict:
    config = base_config()
    config.decode.threshold = 0.7
    return config


@pytest.fixture
def affinities():
    return np.random.default_rng(0).random((3, *SHAPE)).astype(np.float16)


@pytest.fixture
def raw(tmp_path, affinities):
    """Their path, in a folder of its own."""
    path = tmp_path / "seed6" / "raw.zarr"
    volume = create_zarr(
        path,
        shape=affinities.shape,
        dtype=np.float16,
        chunks=(1, 8, 8, 8),
        axes="cxyz",
        attributes={"voxel_size_nm": [9, 9, 12], "edge_stored_at": "source"},
    )
    volume.write(..., affinities)
    return path


def run(config, path, affinities, mask="", **decode):
    """The stage on values, with other ones for some keys of `decode`."""
    config = config.copy_and_resolve_references()
    config.decode.update(decode)
    wanted = Decoding(
        config.decode,
        config.cluster,
        path,
        affinities=affinities,
        edge_stored_at=config.data.edge_stored_at,
        determined_by=determines.facts(config, "segmentation"),
    )
    return stage.run(wanted, mask)


def write_mask(path, mask, **attributes):
    with h5py.File(path, "w") as file:
        file["main"] = mask.astype(np.uint8)
        file["main"].attrs.update(attributes)


def test_writes_the_segments_and_what_made_them(config, raw, affinities, tmp_path):
    path = run(config, tmp_path / "seed6" / "labels.zarr", raw)
    assert path == tmp_path / "seed6" / "labels.zarr"
    volume = open_labels(path)
    expected = label_affinities(affinities, 0.7)
    np.testing.assert_array_equal(volume.read(), expected)
    found = volume.attributes
    assert found["segments"] == expected.max()
    assert found["background"] == pytest.approx((expected == 0).mean(), abs=1e-6)
    assert found["largest_segment_voxels"] == np.bincount(expected[expected > 0]).max()
    assert found["threshold"] == 0.7
    assert found["compared_threshold"] == 0.7001953125  # the float16 next to .7
    assert found["source"] == str(raw)
    assert found["source_fingerprint"].startswith("2:")
    assert found["voxel_size_nm"] == [9, 9, 12]
    assert sorted(os.listdir(tmp_path / "seed6")) == ["labels.zarr", "raw.zarr"]


def test_a_mask_that_is_stored_in_another_order(config, raw, affinities, tmp_path):
    """`axis_order` is PyTC's key and ours; all of the mask, or its numbers, are z y x."""
    mask = np.random.default_rng(2).random(SHAPE) < 0.7
    write_mask(tmp_path / "mask.h5", mask.T, axis_order="ZYX")
    path = run(config, tmp_path / "turned.zarr", raw, tmp_path / "mask.h5")
    expected = label_affinities(affinities, 0.7, mask=mask)
    np.testing.assert_array_equal(open_labels(path).read(), expected)


def test_chunks_that_are_not_there_are_counted(config, raw, tmp_path, caplog):
    (raw / "0.0.0.0").unlink()  # of 3 x 2 x 2 x 2
    with caplog.at_level("INFO"):
        run(config, tmp_path / "labels.zarr", raw)
    said = f"{raw}: 1 of 24 chunks are not there and read as the fill value 0"
    assert caplog.messages.count(said) == 1
    assert any(
        line.startswith(f"decoding by affinity_cc: {raw}\n")
        and "edges to (+1,0,0) (0,+1,0) (0,0,+1), " in line
        and line.endswith("\nstored at their source")
        for line in caplog.messages
    )


def test_a_second_run_finds_it_finished(config, raw, tmp_path):
    path = run(config, tmp_path / "labels.zarr", raw)
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.name[0] != "."}
    assert run(config, path, raw) == path
    after = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.name[0] != "."}
    assert before == after
    assert open_labels(path).attributes["segments"] > 0


def test_mask_by_file_by_specification_and_none(config, raw, affinities, tmp_path):
    image = np.random.default_rng(1).integers(0, 60, SHAPE).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    x, y, z = np.indices(SHAPE)
    ring = (x < 2) | (x >= 10) | (y < 2) | (y >= 8)
    mask = (z >= 1) & (z < 8) & ~(ring & (image <= 30))
    plain, specified = tmp_path / "plain.h5", tmp_path / "specified.h5"
    write_mask(plain, mask)
    numbers = {"low_z": 1, "high_z": 8, "border_width": 2, "bg_thresh": 30.0}
    # Its array says "keep all", so that what is read shows.
    everything = np.ones(SHAPE)
    write_mask(specified, everything, **numbers, source_image="image.npy")
    expected = label_affinities(affinities, 0.7, mask=mask)
    for given in (plain, specified):
        path = run(config, tmp_path / f"{given.stem}.zarr", raw, given)
        np.testing.assert_array_equal(open_labels(path).read(), expected)
    # Moved together with its image; at the old place lies another one now.
    np.save(tmp_path / "other.npy", np.full(SHAPE, 50, np.uint8))
    write_mask(
        specified,
        everything,
        **numbers,
        source_image=str(tmp_path / "other.npy"),
        source_image_relative="image.npy",
        source_fingerprint=fingerprint(tmp_path / "image.npy"),
    )
    opened, found = open_mask(specified)
    assert isinstance(opened, MaskSpec) and found.read().max() < 60
    # The mask alone has moved: the absolute path counts.
    write_mask(
        specified,
        everything,
        **numbers,
        source_image=str(tmp_path / "image.npy"),
        source_image_relative="gone/image.npy",
    )
    assert isinstance(open_mask(specified)[0], MaskSpec)
    # A source image that is not here: the array counts.
    write_mask(specified, everything, **numbers, source_image="elsewhere.npy")
    path = run(config, tmp_path / "moved.zarr", raw, specified)
    unmasked = label_affinities(affinities, 0.7)
    np.testing.assert_array_equal(open_labels(path).read(), unmasked)
    # Nor does an image count that is not the one the mask was built from.
    changed = tmp_path / "changed.h5"
    write_mask(
        changed,
        everything,
        **numbers,
        source_image="image.npy",
        source_fingerprint="that of another image",
    )
    path = run(config, tmp_path / "changed.zarr", raw, changed)
    np.testing.assert_array_equal(open_labels(path).read(), unmasked)
    # "" is none, whatever a key says.
    path = run(config, tmp_path / "none.zarr", raw, affinity_mask=str(plain))
    np.testing.assert_array_equal(open_labels(path).read(), unmasked)


def test_small_segments_and_another_threshold(config, raw, affinities, tmp_path):
    path = run(config, tmp_path / "labels.zarr", raw, min_size=5, threshold=0.6)
    assert open_labels(path).attributes["threshold"] == 0.6
    labels = label_affinities(affinities, 0.6)
    sizes = np.bincount(labels.ravel())
    kept = sizes >= 5
    kept[0] = False
    expected = np.where(kept, np.cumsum(kept), 0)[labels]
    np.testing.assert_array_equal(open_labels(path).read(), expected)


@pytest.mark.parametrize("method", ["grow", "mutex"])
def test_other_methods_write_alike(config, tmp_path, method):
    shape = (12, 11, 13)
    values = np.random.default_rng(2).random((6, *shape)).astype(np.float16)
    raw = create_zarr(
        tmp_path / "six.zarr",
        shape=values.shape,
        dtype=np.float16,
        chunks=(1, 8, 8, 8),
        axes="cxyz",
        attributes={"edge_stored_at": "destination", "voxel_size_nm": [9, 9, 12]},
    )
    raw.write(..., values)
    mask = np.random.default_rng(3).random(shape) < 0.9
    write_mask(tmp_path / "mask.h5", mask)
    config.decode.method = method
    config.decode.threshold = 0.8
    config.decode.low_threshold = 0.25
    config.decode.min_seed = 7
    config.decode.min_size = 3
    inputs = tmp_path / "labels.zarr", raw.source, tmp_path / "mask.h5"
    path = run(config, *inputs, threshold=0.75)
    edges = MaskedEdges(1, mask)
    if method == "grow":
        labels = grow_affinities(values, 0.75, 0.25, min_seed=7, edges=edges)
    else:
        labels = mutex_affinities(values, 0.75, 0.25, edges=edges)
    sizes = np.bincount(labels.ravel())
    kept = sizes >= 3
    kept[0] = False
    expected = np.where(kept, np.cumsum(kept), 0)[labels]
    volume = open_labels(path)
    np.testing.assert_array_equal(volume.read(), expected)
    found = volume.attributes
    assert (found["method"], found["threshold"]) == (method, 0.75)
    assert found["low_threshold"] == 0.25
    assert found.get("min_seed") == (7 if method == "grow" else None)
    assert found["segments"] == expected.max() == kept.sum()
    assert found["voxel_size_nm"] == [9, 9, 12]
    # What a refused run would have overwritten stays.
    config.decode.min_size = 4
    with pytest.raises(
        InputError, match="other decode.min_size .decode.min_size: 3, now 4"
    ):
        run(config, *inputs, threshold=0.75)
    assert open_labels(path).attributes == found


@pytest.fixture
def six(tmp_path):
    """Path of six random channels, the long-range ones three voxels long."""
    values = np.random.default_rng(2).random((6, *SHAPE)).astype(np.float16)
    raw = create_zarr(
        tmp_path / "six.zarr",
        shape=values.shape,
        dtype=np.float16,
        chunks=(1, 8, 8, 8),
        axes="cxyz",
        attributes={"offsets": [list(offset) for offset in SIX]},
    )
    raw.write(..., values)
    return values, raw.source


SIX = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 0, 0), (0, 3, 0), (0, 0, 3))


def test_a_chain_of_one_box_is_decoded_as_in_memory(config, six, tmp_path):
    values, raw = six
    chosen = {"attract": 0.1, "repel": -0.4, "anchor": 3, "low": 0.6, "margin": 0.05}
    out = tmp_path / "labels.zarr"
    path = run(config, out, raw, method="chain", **chosen)
    expected = chain_affinities(values, SIX, ChainParameters(**chosen))
    np.testing.assert_array_equal(open_labels(path).read(), expected)
    assert len(np.unique(expected)) > 2
    with pytest.raises(InputError, match="other decode.repel .decode.repel: -0.4, now"):
        run(config, out, raw, method="chain", **{**chosen, "repel": 0.0})
    # decode.threshold means nothing to it.
    assert run(config, out, raw, method="chain", threshold=0.1, **chosen) == path


def test_a_chain_of_three_channels_begins_at_components(config, six, tmp_path):
    values, raw = six
    chosen = {"threshold": 0.8, "anchor": 4, "low": 0.6, "margin": 0.05}
    path = run(config, tmp_path / "labels.zarr", raw, method="chain3", **chosen)
    labels = label_affinities(values, 0.8)
    labels[np.bincount(labels.ravel())[labels] < 4] = 0
    grown = contested_growth(values[:3], labels, 0.6, 0.05)
    # The same segments, whatever their numbers.
    found = open_labels(path).read()
    pairs = set(zip(found.ravel().tolist(), grown.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(found)) == len(np.unique(grown)) > 2


def test_what_a_chain_cannot_decode_is_named(config, raw, six, tmp_path):
    def refused(match, affinities, **decode):
        with pytest.raises(InputError, match=match):
            run(config, tmp_path / "out" / "labels.zarr", affinities, **decode)
        assert not (tmp_path / "out").exists()

    refused("of 3 channels; wanted .*, or .*method=chain3, which", raw, method="chain")
    refused("memory_gb is 1e-06; .* need", six[1], method="chain", memory_gb=1e-6)
    refused("memory_gb is 1e-06; .* need", raw, method="chain3", memory_gb=1e-6)
    refused("decode.anchor is 0; wanted 1 or more", six[1], method="chain", anchor=0)
    refused("decode.attract is nan", six[1], method="chain", attract=float("nan"))


def test_bad_input_is_named_and_nothing_is_written(config, raw, tmp_path):
    out = tmp_path / "out"

    def refused(match, affinities=raw, mask="", name="labels.zarr", **decode):
        with pytest.raises(InputError, match=match):
            run(config, out / name, affinities, mask, **decode)
        assert not out.exists()

    refused(
        r"decode.threshold is 1.7; wanted a number in \[0, 1\]",
        threshold=1.7,
    )
    refused("decode.threshold is nan", threshold=float("nan"))
    write_mask(tmp_path / "mask.h5", np.ones((12, 10, 8)))
    refused(
        r"mask \(12, 10, 8\) does not match affinities \(12, 10, 9\); rerun --mode=mask",
        mask=tmp_path / "mask.h5",
    )
    np.save(tmp_path / "two.npy", np.zeros((2, 3, 3, 3), np.float32))
    refused(r"two.npy has 2 channel\(s\)", affinities=tmp_path / "two.npy")
    refused("no volume at .*nothing.h5", affinities=tmp_path / "nothing.h5")
    path_inside(raw).write_text(json.dumps({"fingerprint": {}}) + "\n")
    refused("raw.zarr is unfinished")
    path_inside(raw).unlink()
    refused("labels.h5; wanted a name that ends in .zarr", name="labels.h5")
    config.decode.method = "affinty"
    refused("decode.method is 'affinty'; wanted one of affinity_cc, grow, mutex")
    config.decode.method = "grow"
    refused("decode.low_threshold is -0.5", low_threshold=-0.5)
    refused("decode.low_threshold is 0.8, .*<= threshold", low_threshold=0.8)
    refused("decode.min_size is -1", min_size=-1)
    config.decode.memory_gb = 1e-6
    refused("method=grow holds its whole volume: .* decode.memory_gb is 1e-06; raise")
    config.decode.memory_gb = -1.0
    config.decode.method = "affinity_cc"
    refused("decode.memory_gb is -1.0; wanted more than 0")
    config.decode.memory_gb = 4.0
    config.decode.mask_edges = "target"
    refused("mask_edges is 'target'; wanted one of both, source")


def test_an_output_that_another_process_decodes_is_left_to_it(
    config, raw, tmp_path, held_elsewhere
):
    out = tmp_path / "out"
    process = held_elsewhere(out / "labels.zarr.lock")
    with pytest.raises(
        InputError,
        match=f"labels.zarr is being written by process {process} on ",
    ):
        run(config, out / "labels.zarr", raw)
    assert os.listdir(out) == ["labels.zarr.lock"]
    # Another output shares nothing with it.
    other = run(config, out / "other.zarr", raw, threshold=0.6)
    assert open_labels(other).attributes["threshold"] == 0.6


def test_a_refused_decode_changes_nothing_of_a_finished_one(config, raw, tmp_path):
    path = run(config, raw.parent / "labels.zarr", raw)
    before = {f: f.read_bytes() for f in path.rglob("*") if f.is_file()}
    config.data.edge_stored_at = "destination"
    (raw / ".zattrs").unlink()
    with pytest.raises(InputError, match="belongs to a run with other"):
        run(config, path, raw)
    assert {f: f.read_bytes() for f in path.rglob("*") if f.is_file()} == before
    assert sorted(os.listdir(raw.parent)) == ["labels.zarr", "raw.zarr"]
