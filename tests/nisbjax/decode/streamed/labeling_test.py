import collections
import threading

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorstore as ts
from absl import logging

from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError
from nisbjax.mask import MaskSpec
from nisbjax.store.volume import Volume, from_array


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
