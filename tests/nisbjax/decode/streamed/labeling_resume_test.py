"""An interrupted decode is resumed, and what was lost or damaged meanwhile is made again."""

import collections
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from absl import logging

from nisbjax.decode import numbering
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.streamed import boxes, relabeling, scratch
from nisbjax.decode.streamed import labeling as streamed
from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError
from nisbjax.store.manifest_lines import path_inside
from nisbjax.store.volume import create_zarr, open_volume


@pytest.fixture
def on_disk(tmp_path):
    values = np.random.default_rng(9).random((3, 12, 10, 14)).astype(np.float16)
    affinities = create_zarr(
        tmp_path / "raw.zarr",
        shape=values.shape,
        dtype=np.float16,
        chunks=(1, 4, 4, 4),
        axes="cxyz",
    )
    affinities.write(..., values)

    def output(name="labels.zarr"):
        return create_zarr(
            tmp_path / name,
            shape=(12, 10, 14),
            dtype=np.uint32,
            chunks=(4,) * 3,
            axes="xyz",
        )

    return affinities, output, label_affinities(values, 0.7)


class Killed(Exception):
    pass


@pytest.mark.parametrize("part", ["decode", "number", "relabel"])
def test_an_interrupted_decode_goes_on(on_disk, monkeypatch, part):
    affinities, output, expected = on_disk
    options = {"memory_gb": 1.0, "schedule": Schedule(box_shape=(8, 8, 8))}
    calls = collections.Counter()

    def dies(name, call, after):
        def wrapped(*arguments, **options):
            calls[name] += 1
            if name == part and calls[name] > after:
                raise Killed
            return call(*arguments, **options)

        return wrapped

    decode = boxes.ComponentsDecoder.__call__
    relabel = relabeling.Relabeler.__call__
    number = streamed.LabelTables._label_firsts
    with monkeypatch.context() as patch:
        patch.setattr(boxes.ComponentsDecoder, "__call__", dies("decode", decode, 3))
        patch.setattr(relabeling.Relabeler, "__call__", dies("relabel", relabel, 3))
        patch.setattr(streamed.LabelTables, "_label_firsts", dies("number", number, 1))
        with pytest.raises(Killed):
            label_volume(affinities, output(), 0.7, **options)
    # What lies beside a killed output says so, and what is done is not done again.
    calls.clear()
    monkeypatch.setattr(boxes.ComponentsDecoder, "__call__", dies("again", decode, 0))
    statistics = label_volume(affinities, output(), 0.7, memory_gb=2.0)
    assert calls["again"] == (5 if part == "decode" else 0)  # of 2 x 2 x 2 boxes
    np.testing.assert_array_equal(output().read(), expected)
    again = label_volume(affinities, output(), 0.7, memory_gb=1.0)
    assert again == statistics
    assert not (pathlib.Path(output().source) / ".scratch").exists()


def test_other_settings_do_not_go_on(on_disk):
    affinities, output, _ = on_disk
    label_volume(affinities, output(), 0.7, memory_gb=1.0)
    with pytest.raises(InputError, match=r"other threshold .*0.7, now 0.8"):
        label_volume(affinities, output(), 0.8, memory_gb=1.0)


def _interrupted(on_disk, monkeypatch, name, after, box_shape=(8, 8, 8)):
    """A decode of 2 x 2 x 2 boxes that dies in one of its steps; its output's folder."""
    affinities, output, _ = on_disk
    calls = collections.Counter()
    schedule = Schedule(box_shape=box_shape)
    owner = {"decode": boxes.ComponentsDecoder, "relabel": relabeling.Relabeler}[name]
    call = owner.__call__

    def dies(self, index):
        calls[name] += 1
        if calls[name] > after:
            raise Killed
        return call(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(owner, "__call__", dies)
        with pytest.raises(Killed):
            label_volume(affinities, output(), 0.7, memory_gb=1.0, schedule=schedule)
    return pathlib.Path(output().source)


def _flip(path):
    """Three bits of a file, in its middle and at its end."""
    data = bytearray(path.read_bytes())
    for at in (len(data) // 2, len(data) // 2 + 1, len(data) - 1):
        data[at] ^= 1 << 4
    path.write_bytes(data)


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _replace(path):
    """By a chunk that can be read and has labels of which its record knows nothing."""
    volume = open_volume(path.parent, writable=True)
    volume.write(..., volume.read() + 1_000_000)


@pytest.mark.parametrize("harm", [os.unlink, _flip, _cut], ids=["lost", "bits", "cut"])
@pytest.mark.parametrize(
    "what, said",
    [
        (".scratch/3.npz", "records of 1 boxes"),
        (".scratch/provisional.zarr/0.0.0", "labels of box 0:8,0:8,0:8"),
        (".scratch/provisional.zarr/.zarray", ".scratch/provisional.zarr"),
        ("0.0.0", "chunk 0.0.0 is .*part relabel 0:8,0:8,0:8 is made again"),
    ],
)
def test_what_is_lost_or_damaged_between_two_attempts_is_made_again(
    on_disk, monkeypatch, caplog, what, said, harm
):
    affinities, output, expected = on_disk
    folder = _interrupted(on_disk, monkeypatch, "relabel", 0 if "scr" in what else 3)
    harm(folder / what)
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        label_volume(affinities, output(), 0.7, memory_gb=1.0)
    np.testing.assert_array_equal(output().read(), expected)
    if harm is not os.unlink or "zarray" not in what:  # a new array is no damage
        assert re.search(said, caplog.text)
    assert not (folder / ".scratch").exists()


@pytest.mark.parametrize("harm", [os.unlink, _flip], ids=["lost", "bits"])
@pytest.mark.parametrize("box_shape", [(8, 8, 8), (6, 6, 6)], ids=["whole", "shared"])
def test_a_chunk_of_a_finished_output_is_made_again(
    on_disk, monkeypatch, caplog, box_shape, harm
):
    """Also where several boxes share a chunk, so that it has to be written in parts."""
    affinities, output, expected = on_disk
    options = {"memory_gb": 1.0, "schedule": Schedule(box_shape=box_shape)}
    statistics = label_volume(affinities, output(), 0.7, **options)
    folder = pathlib.Path(output().source)
    harm(folder / "1.1.1")
    with pytest.raises(InputError, match="chunk 1.1.1 is (missing|damaged)"):
        open_volume(folder).read()
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        assert label_volume(affinities, output(), 0.7, **options) == statistics
    assert re.search("chunk 1.1.1 is (missing|damaged).* is made again", caplog.text)
    np.testing.assert_array_equal(open_volume(folder).read(), expected)
    assert not (folder / ".scratch").exists()


def test_boxes_that_share_chunks_go_on(on_disk, monkeypatch, caplog):
    affinities, output, expected = on_disk
    folder = _interrupted(on_disk, monkeypatch, "relabel", 5, (6, 6, 6))
    _flip(folder / "0.0.1")
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        label_volume(affinities, output(), 0.7, memory_gb=1.0)
    assert "boxes of an earlier attempt are missing or damaged" in caplog.text
    np.testing.assert_array_equal(open_volume(folder).read(), expected)


def test_labels_that_no_record_knows_reach_no_kernel(on_disk, monkeypatch, caplog):
    affinities, output, expected = on_disk
    folder = _interrupted(on_disk, monkeypatch, "relabel", 0)
    _replace(folder / ".scratch/provisional.zarr/0.0.0")
    label_volume(affinities, output(), 0.7, memory_gb=1.0)
    np.testing.assert_array_equal(output().read(), expected)


def test_a_label_beyond_the_table_is_refused():
    labels, table = np.array([0, 2, 2, 3], np.uint32), np.array([0, 5, 6], np.uint32)
    result = np.zeros(4, np.uint32)
    assert not numbering.relabel(labels, table, result)
    assert not numbering.relabel(labels[::-1].copy(), table, result)
    assert numbering.relabel(labels[:3], table, result)
    assert result[:3].tolist() == [0, 6, 6]
    wide = np.array(
        [2**63 + 1], np.uint64
    )  # negative, were it taken for a signed number
    assert not numbering.relabel(wide, table, result)


def test_affinities_that_changed_meanwhile_are_named(on_disk, monkeypatch):
    """The tables were made from the records of the first ones."""
    affinities, output, _ = on_disk
    folder = _interrupted(on_disk, monkeypatch, "relabel", 0)
    affinities.write(..., np.zeros(affinities.shape, np.float16))
    shutil.rmtree(folder / ".scratch" / "provisional.zarr")
    with pytest.raises(
        InputError, match="0:8,0:8,0:8 of .*raw.zarr gives other labels"
    ):
        label_volume(affinities, output(), 0.7, memory_gb=1.0)


def test_without_its_scratch_folder_a_decode_begins_anew(on_disk, monkeypatch, caplog):
    affinities, output, expected = on_disk
    folder = _interrupted(on_disk, monkeypatch, "decode", 3)
    shutil.rmtree(folder / ".scratch")
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        label_volume(affinities, output(), 0.7, memory_gb=1.0)
    assert "records of 3 boxes of an earlier attempt are missing" in caplog.text
    np.testing.assert_array_equal(output().read(), expected)


@pytest.mark.parametrize("step", ["decode", "relabel"])
@pytest.mark.parametrize("format", [None, 1, 1000])
def test_what_another_version_left_is_begun_anew(
    on_disk, monkeypatch, caplog, step, format
):
    """Records of before there were formats lack what this version looks for."""
    affinities, output, expected = on_disk
    folder = _interrupted(on_disk, monkeypatch, step, 3)
    manifest = path_inside(folder)
    noted = f'"format": {scratch.FORMAT}'
    assert noted in manifest.read_text()
    said = manifest.read_text().replace(noted, f'"format": {json.dumps(format)}')
    if format is None:
        said = said.replace(', "format": null', "")
    manifest.write_text(said)
    for record in (folder / ".scratch").glob("*.npz"):
        with np.load(record) as found:
            arrays = {name: found[name] for name in found if name != "nonfinite"}
        np.savez(record, **arrays)
    logging.get_absl_logger().propagate = True
    read, call = [], boxes.ComponentsDecoder.__call__
    with monkeypatch.context() as patch, caplog.at_level("WARNING"):
        patch.setattr(
            boxes.ComponentsDecoder,
            "__call__",
            lambda self, i: read.append(i) or call(self, i),
        )
        schedule = Schedule(box_shape=(6, 10, 14))
        label_volume(affinities, output(), 0.7, memory_gb=1.0, schedule=schedule)
    # Nothing of it is kept, the shape of its boxes neither.
    assert sorted(read) == [0, 1]
    assert "left unfinished by another version of this program" in caplog.text
    np.testing.assert_array_equal(output().read(), expected)
    assert not (folder / ".scratch").exists()


def test_a_scratch_folder_of_an_output_that_was_removed_is_not_used(
    on_disk, monkeypatch
):
    affinities, output, expected = on_disk
    folder = _interrupted(on_disk, monkeypatch, "decode", 3)
    stale = {p: p.read_bytes() for p in (folder / ".scratch").glob("*.npz")}
    assert stale
    shutil.rmtree(folder)
    output()
    (folder / ".scratch").mkdir()
    for path, content in stale.items():
        path.write_bytes(content)
    read = []
    call = boxes.ComponentsDecoder.__call__
    monkeypatch.setattr(
        boxes.ComponentsDecoder,
        "__call__",
        lambda self, i: read.append(i) or call(self, i),
    )
    schedule = Schedule(box_shape=(8, 8, 8))
    label_volume(affinities, output(), 0.7, memory_gb=1.0, schedule=schedule)
    assert sorted(read) == list(range(8))
    np.testing.assert_array_equal(output().read(), expected)


def test_a_kill_between_the_last_line_and_the_sweep_leaves_nothing(
    on_disk, monkeypatch
):
    affinities, output, _ = on_disk
    label_volume(affinities, output("undisturbed.zarr"), 0.7, memory_gb=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(streamed.Manifest, "finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            label_volume(affinities, output(), 0.7, memory_gb=1.0)
    folder = pathlib.Path(output().source)
    statistics = label_volume(affinities, output(), 0.7, memory_gb=1.0)
    (folder / ".scratch").mkdir()
    (folder / ".scratch" / "0.npz.host.7-0.partial").write_text("half")
    assert label_volume(affinities, output(), 0.7, memory_gb=1.0) == statistics
    undisturbed = pathlib.Path(output("undisturbed.zarr").source)
    assert sorted(os.listdir(folder)) == sorted(os.listdir(undisturbed))
    assert open_volume(folder).attributes == open_volume(undisturbed).attributes
    assert open_volume(folder).attributes["segments"] == statistics.segments
