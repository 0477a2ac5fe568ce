"""The prediction stage on files: names, attributes, resuming, and refusals."""

import dataclasses
import json
import os
import shutil

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from nisbjax.artifacts import VolumeDir
from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.infer import stage
from nisbjax.infer.network import Network
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.prediction import predict_by
from nisbjax.modes.quality import paths
from nisbjax.qc import stage as qc
from nisbjax.qc.gathering import Gathering
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.manifest_lines import path_inside
from nisbjax.store.volume import create_zarr, open_affinities, open_image


def predict(config, network, image, target):
    return predict_by(config, network, image, target, NamedOutputs.of(config))


def check(config, target, **given):
    memory = config.decode.memory_gb
    return qc.check(
        config.qc, paths(target, NamedOutputs.of(config)), **given, memory_gb=memory
    )


@pytest.fixture
def config():
    c = base_config().unlock()
    c.model.size = "S"
    c.model.channels = 2
    c.data.patch = (16, 16, 16)
    c.predict.batch_per_device = 1
    return c


def apply(params, images):
    """Six channels that know where in the window they are."""
    ramp = jnp.arange(images.shape[1], dtype=images.dtype)[None, :, None, None, None]
    return (images - 0.5) * (params + ramp)


@pytest.fixture
def network():
    facts = {"weights": "ema", "step": 7}
    return Network(
        apply, np.arange(1, 7, dtype=np.float32)[None, None, None, None], facts
    )


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "seed6" / "data.zarr" / "img"
    volume = create_zarr(
        path, shape=(10, 20, 18, 1), dtype="uint8", chunks=(8, 8, 8, 1), axes="xyzc"
    )
    values = np.random.default_rng(0).integers(0, 256, volume.shape, np.uint8)
    volume.write(..., values)
    return path


def test_a_run_writes_the_tutorials_file_with_its_origin(
    tmp_path, config, network, image
):
    target = VolumeDir(tmp_path / "test_step=00000000" / "seed6")
    final = predict(config, network, image, target)
    assert final.name == "raw_x1_ch0-1-2.h5"
    with h5py.File(final) as file:
        main = file["main"]
        assert main.shape == (3, 10, 20, 18) and main.dtype == np.float16
        assert main.compression == "gzip" and main.compression_opts == 4
        attributes = dict(main.attrs)
        values = main[:]
    assert json.loads(attributes["offsets"]) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert attributes["edge_stored_at"] == "source"
    assert json.loads(attributes["voxel_size_nm"]) == [9.0, 9.0, 12.0]
    assert json.loads(attributes["network"]) == network.facts
    assert attributes["software"].startswith("nisbjax ")
    assert np.isfinite(values).all() and 0 < values.min() < values.max() < 1

    # Again: nothing is predicted; with the end cut off the manifest, the same bytes.
    before = final.stat().st_mtime_ns
    assert predict(config, network, image, target) == final
    assert final.stat().st_mtime_ns == before
    work = target.raw("zarr")
    manifest = path_inside(work)
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(lines[0])
    for chunk in work.glob("[0-9]*"):
        chunk.unlink()
    final.unlink()
    predict(config, network, image, target)
    np.testing.assert_array_equal(open_affinities(final).read(), values)


def test_a_region_is_a_part_of_the_whole(tmp_path, config, network, image):
    config.predict.format = "zarr"
    whole = predict(config, network, image, VolumeDir(tmp_path / "whole"))
    config.predict.roi = "2:9,0:20,5:18"
    config.predict.output = str(tmp_path / "part.zarr")
    part = predict(config, network, image, VolumeDir(tmp_path / "unused"))
    assert open_affinities(part).attributes["box"] == "2:9,0:20,5:18"
    np.testing.assert_array_equal(
        open_affinities(part).read(), open_affinities(whole).read()[:, 2:9, :, 5:18]
    )


@pytest.mark.parametrize(
    "key, value, text",
    [
        ("format", "tif", "predict.format is 'tif'; wanted one of h5, zarr"),
        ("dtype", "int8", "predict.dtype is 'int8'"),
        ("tta", "rotations", "predict.tta is 'rotations'"),
        ("output", "raw.npy", "wanted a name that ends in .zarr or .h5"),
        ("roi", "2:9", "a box was given as '2:9'"),
    ],
)
def test_keys_without_meaning_are_refused(
    tmp_path, config, network, image, key, value, text
):
    config.predict[key] = value
    with pytest.raises(InputError, match=text):
        predict(config, network, image, VolumeDir(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_configuration_does_not_go_on_with_a_file(
    tmp_path, config, network, image
):
    predict(config, network, image, VolumeDir(tmp_path / "out"))
    config.predict.scale = 0.5
    with pytest.raises(
        InputError, match="other predict.scale .predict.scale: 0.2, now 0.5."
    ):
        predict(config, network, image, VolumeDir(tmp_path / "out"))


def test_an_image_with_other_channels_or_none_is_refused(
    tmp_path, config, network, image
):
    network = dataclasses.replace(network, in_channels=8)
    with pytest.raises(InputError, match="has 1 channels, model.in_channels is 8"):
        predict(config, network, image, VolumeDir(tmp_path))
    with pytest.raises(InputError, match="no volume at /nowhere/img"):
        predict(config, network, "/nowhere/img", VolumeDir(tmp_path))


def test_statistics_are_gathered_for_qc(tmp_path, config, network, image, monkeypatch):
    target = VolumeDir(tmp_path / "seed6")
    config.qc.border_width = 3
    config.qc.bg_thresh = 254.0
    final = predict(config, network, image, target)
    assert target.plane_statistics.exists()
    assert not (target.raw("zarr") / ".planes").exists()
    gathered = check(config, target, prediction=final, image=image).read_text()
    target.plane_statistics.unlink()
    scanned = check(config, target, prediction=final, image=image).read_text()
    assert gathered == scanned and "too few" not in scanned


def test_statistics_survive_a_kill(tmp_path, config, network, image, monkeypatch):
    whole = VolumeDir(tmp_path / "whole")
    monkeypatch.setattr(stage, "_CHUNK", (4, 8, 8))
    final = predict(config, network, image, whole)
    report = check(config, whole, prediction=final, image=image).read_text()

    class Killed(Exception):
        pass

    write = Gathering.observe

    def kill(self, box, values):
        if box.start[0] == 4:
            raise Killed
        return write(self, box, values)

    killed = VolumeDir(tmp_path / "other")
    monkeypatch.setattr(Gathering, "observe", kill)
    with pytest.raises(Killed):
        predict(config, network, image, killed)
    assert list((killed.raw("zarr") / ".planes").glob("*.npz"))
    monkeypatch.setattr(Gathering, "observe", write)
    # Once more, between the merged statistics and the prediction's last line.
    with monkeypatch.context() as patch:
        patch.setattr(stage.Manifest, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(config, network, image, killed)
    (killed.raw("zarr") / ".planes").mkdir()
    final = predict(config, network, image, killed)
    again = check(config, killed, prediction=final, image=image).read_text()
    assert again == report.replace(str(whole.path), str(killed.path))
    left, undisturbed = (
        sorted(path.relative_to(place.path) for path in place.path.rglob("*"))
        for place in (killed, whole)
    )
    assert left == undisturbed


def test_flips_make_a_prediction_that_turns_with_the_image(
    tmp_path, config, network, image
):
    config.predict.tta = "flips"
    # One window: weights belong to where an edge is stored, which turning changes.
    config.predict.window = (32, 32, 32)
    config.predict.format = "zarr"
    final = predict(config, network, image, VolumeDir(tmp_path / "a"))
    mirrored = tmp_path / "mirrored"
    values = open_image(image).read()
    volume = create_zarr(
        mirrored, shape=values.shape, dtype="uint8", chunks=(8, 8, 8, 1), axes="xyzc"
    )
    volume.write(..., values[:, ::-1])
    other = predict(config, network, mirrored, VolumeDir(tmp_path / "b"))
    upright, turned = open_affinities(final).read(), open_affinities(other).read()
    # The edges along y change ends: v -> v + 1 is stored one voxel further on.
    np.testing.assert_allclose(turned[0, :, ::-1], upright[0], atol=2e-3)
    np.testing.assert_allclose(turned[1, :, ::-1][:, 1:], upright[1, :, :-1], atol=2e-3)


def chunk_of(work):
    """Some chunk of a prediction, not its first."""
    return max(p for p in work.iterdir() if p.name[0].isdigit())


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


HARMS = {
    "removed": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "flipped": flip,
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_of_a_finished_prediction_is_predicted_again(
    tmp_path, config, network, image, harm, monkeypatch, caplog
):
    monkeypatch.setattr(stage, "_CHUNK", (4, 8, 8))
    config.predict.format = "zarr"
    target = VolumeDir(tmp_path / "out")
    work = predict(config, network, image, target)
    values = open_affinities(work).read()
    made = fingerprint(work)
    lost = chunk_of(work)
    HARMS[harm](lost)
    # Whoever reads it says which chunk, and what helps.
    with pytest.raises(InputError, match=rf"chunk {lost.name} is .*--mode=predict"):
        open_affinities(work).read()
    boxes = []
    observe = Gathering.observe
    monkeypatch.setattr(
        Gathering,
        "observe",
        lambda self, box, values: boxes.append(box) or observe(self, box, values),
    )
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        assert predict(config, network, image, target) == work
    assert len(boxes) == 1  # of three slabs
    assert f"chunk {lost.name} is" in caplog.text
    assert f"part {boxes[0]} is made again" in caplog.text
    np.testing.assert_array_equal(open_affinities(work).read(), values)
    assert fingerprint(work) == made
    predict(config, network, image, target)
    assert len(boxes) == 1


def test_a_prediction_that_was_removed_is_made_again(tmp_path, config, network, image):
    config.predict.format = "zarr"
    target = VolumeDir(tmp_path / "out")
    values = open_affinities(predict(config, network, image, target)).read()
    before = sorted(p.name for p in target.path.iterdir())
    shutil.rmtree(target.raw("zarr"))
    again = predict(config, network, image, target)
    np.testing.assert_array_equal(open_affinities(again).read(), values)
    assert before == sorted(p.name for p in target.path.iterdir())
    assert not list(target.path.glob("*.lock"))


def test_a_prediction_that_is_removed_while_it_is_written(
    tmp_path, config, network, image, monkeypatch
):
    monkeypatch.setattr(stage, "_CHUNK", (4, 8, 8))
    whole = predict(config, network, image, VolumeDir(tmp_path / "whole"))
    target = VolumeDir(tmp_path / "out")
    observe = Gathering.observe

    def remove(self, box, values):
        if box.start[0] == 4:
            shutil.rmtree(target.raw("zarr"))
        return observe(self, box, values)

    with monkeypatch.context() as patch:
        patch.setattr(Gathering, "observe", remove)
        with pytest.raises(
            InputError, match="zarr was removed or replaced while it was"
        ):
            predict(config, network, image, target)
    assert not target.raw("h5").exists()
    # Chunks that the writer made after the removal do not hinder the next start.
    again = predict(config, network, image, target)
    np.testing.assert_array_equal(
        open_affinities(again).read(), open_affinities(whole).read()
    )


def h5_cut(path):
    os.truncate(path, path.stat().st_size // 2)


def h5_flipped(path):
    with h5py.File(path) as file:
        start = file["main"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[start + 20] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [h5_cut, h5_flipped, os.unlink])
def test_a_damaged_export_is_written_again(tmp_path, config, network, image, harm):
    target = VolumeDir(tmp_path / "out")
    final = predict(config, network, image, target)
    content = final.read_bytes()
    before = open_affinities(final).read()
    harm(final)
    assert predict(config, network, image, target) == final
    np.testing.assert_array_equal(open_affinities(final).read(), before)
    assert len(content) == final.stat().st_size


def test_an_export_is_believed_without_the_array_that_it_is_of(
    tmp_path, config, network, image
):
    target = VolumeDir(tmp_path / "out")
    final = predict(config, network, image, target)
    values, content = open_affinities(final).read(), final.read_bytes()
    shutil.rmtree(target.raw("zarr"))
    assert predict(config, network, image, target) == final
    assert not target.raw("zarr").exists() and final.read_bytes() == content
    h5_flipped(final)
    predict(config, network, image, target)
    assert target.raw("zarr").exists()
    np.testing.assert_array_equal(open_affinities(final).read(), values)
    # Cut, and without the array, nothing says whose it is.
    shutil.rmtree(target.raw("zarr"))
    os.truncate(final, 100)
    with pytest.raises(InputError, match="h5 is in the way and cannot be read as HDF5"):
        predict(config, network, image, target)


def test_files_of_others_in_the_way_are_refused(tmp_path, config, network, image):
    target = VolumeDir(tmp_path / "out")
    target.path.mkdir()
    with h5py.File(target.raw("h5"), "w") as file:
        file["main"] = np.zeros((3, 10, 20, 18), np.float16)
    content = target.raw("h5").read_bytes()
    with pytest.raises(
        InputError, match="h5 is in the way and says not that it is ours"
    ):
        predict(config, network, image, target)
    assert target.raw("h5").read_bytes() == content
    assert [p.name for p in target.path.iterdir()] == [target.raw("h5").name]
    target.raw("h5").unlink()
    foreign = create_zarr(
        target.raw("zarr"),
        shape=(3, 10, 20, 18),
        dtype="float16",
        chunks=(1, 64, 128, 128),
        axes="cxyz",
    )
    foreign.write(..., np.ones(foreign.shape, np.float16))
    with pytest.raises(InputError, match="zarr was not written by this stage"):
        predict(config, network, image, target)
    assert (foreign.read() == 1).all()


def test_a_prediction_that_another_process_writes_is_refused(
    tmp_path, config, network, image, held_elsewhere
):
    target = VolumeDir(tmp_path / "out")
    pid = held_elsewhere(
        target.raw("zarr").with_name(f"{target.raw('zarr').name}.lock")
    )
    with pytest.raises(
        InputError, match=f"raw_x1_ch0-1-2.zarr is being written by process {pid} on"
    ):
        predict(config, network, image, target)
    assert not target.raw("zarr").exists()
