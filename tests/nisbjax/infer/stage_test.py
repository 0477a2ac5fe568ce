"""The prediction stage on files: names, attributes, resuming, and refusals."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from nisbjax.artifacts import VolumeDir
from nisbjax.errors import InputError
from nisbjax.infer import compute_dtype, stage
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.prediction import predict_by
from nisbjax.modes.quality import paths
from nisbjax.qc import stage as qc
from nisbjax.qc.gathering import Gathering
from nisbjax.store.manifest_lines import path_inside
from nisbjax.store.volume import create_zarr, open_affinities, open_image


def check(config, target, **given):
    memory = config.decode.memory_gb
    return qc.check(
        config.qc, paths(target, NamedOutputs.of(config)), **given, memory_gb=memory
    )


def test_a_run_writes_the_tutorials_file_with_its_origin(
    tmp_path, config, network, image, predict
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


def test_a_prediction_is_replaced_where_that_is_asked_for(
    tmp_path, config, network, image, predict
):
    """The zarr and the file that is made of it, both of another scale."""
    target = VolumeDir(tmp_path / "seed6")
    final = predict(config, network, image, target)
    config.predict.scale = 0.5
    with pytest.raises(InputError, match="belongs to a run with other predict.scale"):
        predict(config, network, image, target)
    named = NamedOutputs.of(config, ("predict",))
    assert predict_by(config, network, image, target, named) == final
    afresh = predict(config, network, image, VolumeDir(tmp_path / "afresh"))
    for path in (final, target.raw("zarr")):
        np.testing.assert_array_equal(
            open_affinities(path).read(), open_affinities(afresh).read()
        )


def test_a_prediction_says_which_type_it_was_computed_in(
    tmp_path, config, network, image, predict, monkeypatch
):
    """What a GPU predicted is taken on a node without one, and not gone on with."""
    target = VolumeDir(tmp_path / "seed6")
    monkeypatch.setattr(compute_dtype, "_on_gpu", lambda: True)
    final = predict(config, network, image, target)
    work = target.raw("zarr")
    assert open_affinities(work).attributes["precision"] == "fp16"
    first, *lines = path_inside(work).read_bytes().splitlines(keepends=True)
    assert json.loads(first)["fingerprint"]["predict.precision"] == "fp16"

    monkeypatch.setattr(compute_dtype, "_on_gpu", lambda: False)
    assert predict(config, network, image, target) == final
    parts = [line for line in lines if b'"key"' in line]
    path_inside(work).write_bytes(b"".join([first, *parts]))  # unfinished
    final.unlink()
    message = r"other predict.precision \(predict.precision: 'fp16', now 'fp32'\)"
    with pytest.raises(InputError, match=message):
        predict(config, network, image, target)
    config.predict.precision = "fp16"
    assert predict(config, network, image, target) == final

    config.predict.precision = "auto"
    shutil.rmtree(work)  # the file alone says it too
    assert predict(config, network, image, target) == final


def test_a_file_of_another_program_is_not_replaced(
    tmp_path, config, network, image, predict
):
    config.predict.output = str(tmp_path / "theirs.h5")
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["main"] = np.ones((3, 4, 4, 4), np.float16)
    before = (tmp_path / "theirs.h5").read_bytes()
    named = NamedOutputs.of(config, ("predict",))
    with pytest.raises(InputError, match="in the way and says not that it is ours"):
        predict_by(config, network, image, VolumeDir(tmp_path), named)
    assert (tmp_path / "theirs.h5").read_bytes() == before
    assert not (tmp_path / "theirs.zarr").exists()


def test_a_region_is_a_part_of_the_whole(tmp_path, config, network, image, predict):
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
    tmp_path, config, network, image, key, value, text, predict
):
    config.predict[key] = value
    with pytest.raises(InputError, match=text):
        predict(config, network, image, VolumeDir(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_configuration_does_not_go_on_with_a_file(
    tmp_path, config, network, image, predict
):
    predict(config, network, image, VolumeDir(tmp_path / "out"))
    config.predict.scale = 0.5
    with pytest.raises(
        InputError, match="other predict.scale .predict.scale: 0.2, now 0.5."
    ):
        predict(config, network, image, VolumeDir(tmp_path / "out"))


def test_an_image_with_other_channels_or_none_is_refused(
    tmp_path, config, network, image, predict
):
    network = dataclasses.replace(network, in_channels=8)
    with pytest.raises(InputError, match="has 1 channels, model.in_channels is 8"):
        predict(config, network, image, VolumeDir(tmp_path))
    with pytest.raises(InputError, match="no volume at /nowhere/img"):
        predict(config, network, "/nowhere/img", VolumeDir(tmp_path))


def test_statistics_are_gathered_for_qc(
    tmp_path, config, network, image, monkeypatch, predict
):
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


def test_statistics_survive_a_kill(
    tmp_path, config, network, image, monkeypatch, predict
):
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
    tmp_path, config, network, image, predict
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


def test_files_of_others_in_the_way_are_refused(
    tmp_path, config, network, image, predict
):
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
    tmp_path, config, network, image, held_elsewhere, predict
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
