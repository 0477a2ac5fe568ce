"""What is lost or damaged of a prediction or its export is made again."""

import os
import shutil

import h5py
import numpy as np
import pytest
from absl import logging

from nisbjax.artifacts import VolumeDir
from nisbjax.errors import InputError
from nisbjax.infer import stage
from nisbjax.qc.gathering import Gathering
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.volume import open_affinities


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
    tmp_path, config, network, image, harm, monkeypatch, caplog, predict
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


def test_a_prediction_that_was_removed_is_made_again(
    tmp_path, config, network, image, predict
):
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
    tmp_path, config, network, image, monkeypatch, predict
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
def test_a_damaged_export_is_written_again(
    tmp_path, config, network, image, harm, predict
):
    target = VolumeDir(tmp_path / "out")
    final = predict(config, network, image, target)
    content = final.read_bytes()
    before = open_affinities(final).read()
    harm(final)
    assert predict(config, network, image, target) == final
    np.testing.assert_array_equal(open_affinities(final).read(), before)
    assert len(content) == final.stat().st_size


def test_an_export_is_believed_without_the_array_that_it_is_of(
    tmp_path, config, network, image, predict
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
