import collections
import threading

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorstore as ts

from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.thresholds import frontier
from nisbjax.decode.thresholds.sweep import nodes_by_threshold
from nisbjax.errors import InputError
from nisbjax.mask import MaskSpec
from nisbjax.store.volume import Volume, from_array


def assert_same_partition(found, expected):
    """Equal up to the names of the segments, background included."""
    assert ((found == 0) == (expected == 0)).all()
    pairs = set(zip(found.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def random_affinities(seed, shape, dtype=np.float16):
    values = np.random.default_rng(seed).random((3, *shape))
    return (values * (255 if dtype == np.uint8 else 1)).astype(dtype)


def all_voxels(shape):
    return np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)


def test_a_row_drawn_by_hand():
    # Edges along z: 0 -.9- 1 -.6- 2 -.8- 3 . 4; nodes at 0, 2, 3 and 4.
    affinities = np.zeros((3, 1, 1, 5), np.float32)
    affinities[2, 0, 0] = [0.9, 0.6, 0.8, 0, 0]
    positions = np.array([[0, 0, 0], [0, 0, 2], [0, 0, 3], [0, 0, 4]])
    found = nodes_by_threshold(affinities, positions, (0.5, 0.85, 0.7, 0.9))
    assert found.dtype == np.uint64
    # Named by first nodes (+ 1): .5 joins all, .7 leaves 0-1 and 2-3, .85 only 0-1.
    assert found.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 2, 2, 0], [0, 0, 0, 0]]


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9)),
    box_shape=st.none()
    | st.tuples(st.integers(3, 5), st.integers(2, 5), st.integers(3, 6)),
    dtype=st.sampled_from([np.float16, np.float32, np.uint8]),
    thresholds=st.lists(st.integers(0, 1000).map(lambda i: i / 1000), max_size=7),
    edge_offset=st.sampled_from([0, 1]),
    masked=st.sampled_from(["", "both", "source"]),
    nodes=st.sampled_from([None, 1, 4, 20]),
)
def test_equals_a_decode_at_each_threshold(
    seed, shape, box_shape, dtype, thresholds, edge_offset, masked, nodes
):
    affinities = random_affinities(seed, shape, dtype)
    mask = np.random.default_rng(seed).random(shape) < 0.8 if masked else None
    options = {"edge_offset": edge_offset, "mask_edges": masked or "both", "mask": mask}
    thresholds = [0.6, *thresholds, 0.6]  # equal ones too
    # All voxels, or so few that most are joined before anybody asks about them.
    positions = np.random.default_rng(seed).permutation(all_voxels(shape))[:nodes]
    found = nodes_by_threshold(
        affinities,
        positions,
        thresholds,
        edges=MaskedEdges(**options),
        box_shape=box_shape,
    )
    assert found.shape == (len(thresholds), len(positions))
    for threshold, row in zip(thresholds, found, strict=True):
        labels = label_affinities(affinities, threshold, **options)
        assert_same_partition(row, labels[tuple(positions.T)])


@pytest.mark.parametrize("thresholds", [1, 50])
def test_grids_of_any_length_and_rows_of_several_words(thresholds):
    affinities = random_affinities(1, (3, 4, 130))
    grid = np.linspace(0.02, 0.98, thresholds)
    positions = all_voxels((3, 4, 130))
    found = nodes_by_threshold(affinities, positions, grid.tolist())
    for threshold, row in zip(grid.tolist(), found, strict=True):
        expected = label_affinities(affinities, threshold)
        assert_same_partition(row, expected.ravel())


@pytest.mark.parametrize("shape", [(6, 7, 19), (19, 6, 7)])
def test_faces_are_forgotten_as_soon_as_both_sides_have_come(shape, monkeypatch):
    monkeypatch.setattr(frontier, "_ROOM", 0)
    sizes = []
    forget = frontier.Frontier._forget

    def counted(self):
        forget(self)
        sizes.append(len(self._parent))

    monkeypatch.setattr(frontier.Frontier, "_forget", counted)
    affinities = random_affinities(3, shape)
    positions = all_voxels(shape)[::50]
    found = nodes_by_threshold(
        affinities, positions, (0.4, 0.6, 0.7), box_shape=(4,) * 3
    )
    # Along the longest axis: at most a cross-section of 6 x 7 (and the steps in it, one
    # box high, 4 x 7) waits, besides the 16 nodes.
    assert 0 < max(sizes) <= 6 * 7 + 2 * 4 * 7 + 16
    for threshold, row in zip((0.4, 0.6, 0.7), found, strict=True):
        labels = label_affinities(affinities, threshold)
        assert_same_partition(row, labels[tuple(positions.T)])


def test_nodes_far_apart_in_a_larger_volume():
    affinities = random_affinities(4, (40, 30, 70))
    positions = np.random.default_rng(4).integers(0, (40, 30, 70), (60, 3))
    grid = np.linspace(0.3, 0.9, 7).tolist()
    found = nodes_by_threshold(affinities, positions, grid)
    for threshold, row in zip(grid, found, strict=True):
        labels = label_affinities(affinities, threshold)
        assert_same_partition(row, labels[tuple(positions.T)])


def test_thresholds_that_float16_cannot_tell_apart():
    affinities = random_affinities(2, (5, 5, 5))
    positions = all_voxels((5, 5, 5))
    found = nodes_by_threshold(affinities, positions, (0.7, 0.70001, 0.7001))
    np.testing.assert_array_equal(found[0], found[1])
    assert_same_partition(found[0], label_affinities(affinities, 0.70001).ravel())


def test_a_specification_masks_as_its_array():
    shape = (9, 8, 10)
    affinities = random_affinities(5, shape)
    image = np.random.default_rng(6).integers(0, 60, (*shape, 1)).astype(np.uint8)
    spec = MaskSpec(shape, low_z=2, high_z=9, border_width=2, bg_thresh=30.0)
    positions = all_voxels(shape)
    found = nodes_by_threshold(
        affinities,
        positions,
        (0.6, 0.7),
        edges=MaskedEdges(mask=spec, image=image),
        box_shape=(5, 5, 6),
    )
    for threshold, row in zip((0.6, 0.7), found, strict=True):
        labels = label_affinities(affinities, threshold, mask=spec, image=image)
        assert_same_partition(row, labels.ravel())


@pytest.mark.parametrize("thresholds", [(0.7,), tuple(np.linspace(0.1, 0.9, 50))])
def test_every_chunk_is_read_once(thresholds):
    values = random_affinities(0, (20, 12, 14))
    reads, lock = collections.Counter(), threading.Lock()

    def read(domain, chunk, _):
        with lock:
            reads[domain.origin] += 1
        chunk[...] = values[domain.index_exp]

    store = ts.virtual_chunked(
        read,
        dtype=ts.float16,
        shape=values.shape,
        chunk_layout=ts.ChunkLayout(chunk_shape=(1, 8, 8, 8)),
    )
    positions = all_voxels((20, 12, 14))[::7]
    found = nodes_by_threshold(
        Volume(store, "cxyz"), positions, [float(t) for t in thresholds], memory_gb=4e-5
    )
    assert len(reads) == 3 * 3 * 2 * 2
    assert set(reads.values()) == {1}
    expected = label_affinities(values, float(thresholds[-1]))
    assert_same_partition(found[-1], expected[tuple(positions.T)])


def test_no_nodes_and_no_thresholds():
    affinities = random_affinities(0, (4, 4, 4))
    nobody = np.empty((0, 3), np.int64)
    assert nodes_by_threshold(affinities, nobody, (0.5,)).shape == (1, 0)
    assert nodes_by_threshold(affinities, all_voxels((4, 4, 4)), ()).shape == (0, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": (0.5, 1.2)}, "threshold 1.2 .* from 0 to 1"),
        ({"thresholds": (float("nan"),)}, "threshold nan"),
        ({"positions": np.array([[0, 0, 0], [0, 4, 0]])}, r"1 of 2 .* at \[0, 4, 0\]"),
        ({"positions": np.array([[-1, 0, 0]])}, "1 of 1 skeleton nodes lie outside"),
        ({"mask": np.ones((4, 4, 5), bool)}, r"mask \(4, 4, 5\) does not match"),
        ({"mask": np.ones((4, 4, 4)), "edges": MaskedEdges()}, "came beside edges"),
        (
            {"thresholds": np.linspace(0, 1, 256).tolist()},
            "256 different thresholds came; wanted at most 255",
        ),
        (
            {"affinities": from_array(np.zeros((2, 4, 4, 4), np.float32), "cxyz")},
            "2 channel",
        ),
    ],
)
def test_bad_input_is_named(options, message):
    arguments = {
        "affinities": np.zeros((3, 4, 4, 4), np.float32),
        "positions": np.array([[0, 0, 0]]),
        "thresholds": (0.5,),
    } | options
    with pytest.raises(InputError, match=message):
        nodes_by_threshold(**arguments)
