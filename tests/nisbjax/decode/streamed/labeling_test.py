import collections
import os
import pathlib
import re
import shutil
import threading

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorstore as ts
from absl import logging

from nisbjax.decode import numbering
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed import boxes, relabeling
from nisbjax.decode.streamed import labeling as streamed
from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError
from nisbjax.mask import MaskSpec
from nisbjax.store.volume import Volume, create_zarr, from_array, open_volume


def random_affinities(seed, shape, dtype=np.float32, channels=3):
    values = np.random.default_rng(seed).random((channels, *shape))
    return (values * (255 if dtype == np.uint8 else 1)).astype(dtype)


def without_small(labels, min_size):
    """Labels 1..N again without those of fewer voxels."""
    sizes = np.bincount(labels.ravel())
    result, count = np.zeros_like(labels), 0
    for label in range(1, len(sizes)):
        if sizes[label] >= min_size:
            count += 1
            result[labels == label] = count
    return result


def decode(affinities, threshold, box_shape, min_size=0, **options):
    output = np.zeros(affinities.shape[1:], np.uint32)
    statistics = label_volume(
        from_array(affinities, "cxyz"),
        from_array(output, "xyz"),
        threshold,
        memory_gb=1.0,
        edges=MaskedEdges(**options),
        min_size=min_size,
        schedule=Schedule(box_shape=box_shape),
    )
    return output, statistics


def test_a_voxel_that_only_a_seam_joins_belongs_to_its_segment():
    # Along x, boxes of 2 (|): a-b|c . with the only edges a-b and b-c; c has none inside
    # of its own box. Stored at the destination, c holds it and b is the one without.
    affinities = np.zeros((3, 4, 1, 1), np.float32)
    affinities[0, :, 0, 0] = [0.9, 0.9, 0, 0]
    labels, _ = decode(affinities, 0.5, (2, 1, 1))
    assert labels.ravel().tolist() == [1, 1, 1, 0]
    # Destination: voxel 2 holds the edge 1-2, and voxel 1 begins the segment.
    affinities[0, :, 0, 0] = [0, 0, 0.9, 0]
    labels, _ = decode(affinities, 0.5, (2, 1, 1), edge_offset=1)
    assert labels.ravel().tolist() == [0, 1, 1, 0]


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 10)),
    box_shape=st.tuples(st.integers(2, 5), st.integers(1, 5), st.integers(3, 6)),
    dtype=st.sampled_from([np.float16, np.float32, np.uint8]),
    threshold=st.sampled_from([0.3, 0.6, 0.7, 0.8, 0.9]),
    edge_offset=st.sampled_from([0, 1]),
    masked=st.sampled_from(["", "both", "source"]),
    min_size=st.sampled_from([0, 2, 4]),
)
def test_equals_the_labels_made_in_memory(
    seed, shape, box_shape, dtype, threshold, edge_offset, masked, min_size
):
    affinities = random_affinities(seed, shape, dtype)
    mask = np.random.default_rng(seed).random(shape) < 0.8 if masked else None
    options = {"edge_offset": edge_offset, "mask_edges": masked or "both", "mask": mask}
    expected = label_affinities(affinities, threshold, **options)
    if min_size:
        expected = without_small(expected, min_size)
    labels, statistics = decode(
        affinities, threshold, box_shape, min_size=min_size, **options
    )
    np.testing.assert_array_equal(labels, expected)
    sizes = np.bincount(expected.ravel())[1:]
    assert statistics.segments == len(sizes)
    assert statistics.labelled == sizes.sum()
    assert statistics.largest == max(sizes, default=0)
    by_decade = np.bincount(np.log10(sizes[sizes > 0]).astype(int))
    assert statistics.by_decade == by_decade.tolist()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_path_through_all_boxes_is_one_segment(axis):
    # A serpentine in the plane of `axis` and the next: it crosses seams back and forth.
    affinities = np.zeros((3, 12, 12, 12), np.float32)
    other = (axis + 1) % 3
    turned = np.moveaxis(affinities, (1 + axis, 1 + other), (1, 2))
    turned[axis, :-1, :, 0] = 1
    turned[other, -1, 0:-1:2, 0] = 1
    turned[other, 0, 1:-1:2, 0] = 1
    expected = label_affinities(affinities, 0.5)
    assert expected.max() == 1
    assert (expected == 1).sum() == 12 * 12
    labels, statistics = decode(affinities, 0.5, (5, 3, 4))
    np.testing.assert_array_equal(labels, expected)
    assert statistics.segments == 1


def test_a_specification_reads_its_image_box_by_box():
    shape = (9, 8, 10)
    affinities = random_affinities(5, shape, np.float16)
    image = np.random.default_rng(6).integers(0, 60, (*shape, 1)).astype(np.uint8)
    spec = MaskSpec(shape, low_z=2, high_z=9, border_width=2, bg_thresh=30.0)
    for mask_edges in ("both", "source"):
        options = {"mask": spec, "image": image, "mask_edges": mask_edges}
        expected = label_affinities(affinities, 0.6, **options)
        labels, _ = decode(affinities, 0.6, (5, 5, 6), **options)
        np.testing.assert_array_equal(labels, expected)


class CountingStore:
    """Affinities by chunk, made of their position; counts how often each is asked for."""

    def __init__(self, shape, chunk):
        self.values = random_affinities(0, shape, np.float16)
        self.reads = collections.Counter()
        self._lock = threading.Lock()
        layout = ts.ChunkLayout(chunk_shape=(1, *chunk))
        self.volume = Volume(
            ts.virtual_chunked(
                self._read,
                dtype=ts.float16,
                shape=self.values.shape,
                chunk_layout=layout,
            ),
            "cxyz",
        )

    def _read(self, domain, chunk, _):
        with self._lock:
            self.reads[domain.origin] += 1
        chunk[...] = self.values[domain.index_exp]


def test_every_chunk_is_read_once():
    store = CountingStore((20, 18, 22), (8, 8, 8))
    output = from_array(np.zeros((20, 18, 22), np.uint32), "xyz")
    # 30 bytes for each voxel of two boxes: 1 MB leaves room for boxes of two chunks a side.
    label_volume(store.volume, output, 0.7, memory_gb=0.0003, mask=None)
    assert len(store.reads) == 3 * 3 * 3 * 3
    assert set(store.reads.values()) == {1}
    expected = label_affinities(store.values, 0.7)
    np.testing.assert_array_equal(output.read(), expected)


def test_chunks_beyond_memory_are_taken_apart_and_named(caplog):
    store = CountingStore((32, 32, 32), (32, 32, 32))
    output = from_array(np.zeros((32, 32, 32), np.uint32), "xyz")
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        label_volume(store.volume, output, 0.7, memory_gb=0.0003)
    assert "each is read about 8 times" in caplog.text
    assert "Raise decode.memory_gb to" in caplog.text
    expected = label_affinities(store.values, 0.7)
    np.testing.assert_array_equal(output.read(), expected)


@pytest.fixture
def on_disk(tmp_path):
    values = random_affinities(9, (12, 10, 14), np.float16)
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

    decode = boxes.BoxDecoder.__call__
    relabel = relabeling.Relabeler.__call__
    number = streamed.LabelTables._label_firsts
    with monkeypatch.context() as patch:
        patch.setattr(boxes.BoxDecoder, "__call__", dies("decode", decode, 3))
        patch.setattr(relabeling.Relabeler, "__call__", dies("relabel", relabel, 3))
        patch.setattr(streamed.LabelTables, "_label_firsts", dies("number", number, 1))
        with pytest.raises(Killed):
            label_volume(affinities, output(), 0.7, **options)
    # What lies beside a killed output says so, and what is done is not done again.
    calls.clear()
    monkeypatch.setattr(boxes.BoxDecoder, "__call__", dies("again", decode, 0))
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
    owner = {"decode": boxes.BoxDecoder, "relabel": relabeling.Relabeler}[name]
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
    call = boxes.BoxDecoder.__call__
    monkeypatch.setattr(
        boxes.BoxDecoder, "__call__", lambda self, i: read.append(i) or call(self, i)
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


def test_outputs_that_do_not_fit_are_named():
    affinities = from_array(np.zeros((3, 4, 4, 4), np.float32), "cxyz")
    options = {"threshold": 0.5, "memory_gb": 1.0}
    output = from_array(np.zeros((4, 4, 5), np.uint32), "xyz")
    with pytest.raises(InputError, match=r"\(4, 4, 5\) does not match affinities"):
        label_volume(affinities, output, **options)
    output = from_array(np.zeros((4, 4, 4), np.int32), "xyz")
    with pytest.raises(InputError, match="int32; wanted an unsigned integer"):
        label_volume(affinities, output, **options)
    two = from_array(np.zeros((2, 4, 4, 4), np.float32), "cxyz")
    output = from_array(np.zeros((4, 4, 4), np.uint32), "xyz")
    with pytest.raises(InputError, match=r"2 channel\(s\); wanted at least 3"):
        label_volume(two, output, **options)
    # Each voxel its own segment: 512 of them, more than 8 bits can number.
    alone = np.zeros((3, 8, 8, 8), np.float32)
    alone[0, -1] = 1
    affinities = from_array(np.tile(alone[:, -1:], (1, 1, 8, 8)), "cxyz")
    output = from_array(np.zeros((1, 64, 64), np.uint8), "xyz")
    with pytest.raises(InputError, match="uint8, too small for 4096 segments"):
        label_volume(affinities, output, **options)
