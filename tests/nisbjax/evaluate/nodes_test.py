"""Reading segments at nodes: the right values, and no chunk without nodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax import volume
from nisbjax.errors import InputError
from nisbjax.evaluate import nodes
from nisbjax.skeletons import Skeletons


def at(positions) -> Skeletons:
    index = np.array(positions, np.int64)
    return Skeletons(
        node_id=np.arange(1, len(index) + 1),
        index_position=index,
        position_nm=index.astype(float),
        edges=np.zeros((0, 2), np.int64),
        source="skeleton.pkl",
    )


LABELS = np.arange(9 * 8 * 7, dtype=np.uint32).reshape(9, 8, 7)


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 7), st.integers(0, 6)),
        min_size=1,
        max_size=30,
    )
)
def test_values_are_those_of_plain_indexing(positions):
    labels = volume.from_array(LABELS, "xyz")
    found = nodes.read_node_segments(labels, at(positions))
    assert found.tolist() == [LABELS[p] for p in positions]
    assert found.dtype == np.uint32


def test_only_chunks_with_nodes_are_read(tmp_path):
    path = tmp_path / "seg.zarr"
    labels = volume.create_zarr(
        path, shape=LABELS.shape, dtype=np.uint32, chunks=(4, 4, 4), axes="xyz"
    )
    labels.write(..., LABELS)
    keep = {"0.0.0", "2.1.1"}
    for file in path.glob("[0-9]*"):
        if file.name not in keep:
            file.write_bytes(b"this is not a chunk; reading it would raise")
    positions = [(8, 7, 6), (0, 0, 0), (3, 1, 2), (8, 4, 5)]
    found = nodes.read_node_segments(volume.open_labels(path), at(positions))
    assert found.tolist() == [LABELS[p] for p in positions]


def test_a_transposed_file_keeps_its_meaning(tmp_path):
    path = tmp_path / "seg.zarr"
    written = volume.create_zarr(
        path, shape=(7, 8, 9), dtype=np.uint32, chunks=(3, 3, 3), axes="zyx"
    )
    written.write(..., LABELS.T)
    found = nodes.read_node_segments(volume.open_labels(path), at([(8, 2, 1)]))
    assert found[0] == LABELS[8, 2, 1]


def test_large_unchunked_files_are_read_in_parts(monkeypatch):
    monkeypatch.setattr(nodes, "_LARGEST_READ", 20)
    positions = [(8, 7, 6), (0, 0, 0), (4, 3, 3)]
    found = nodes.read_node_segments(volume.from_array(LABELS, "xyz"), at(positions))
    assert found.tolist() == [LABELS[p] for p in positions]


def test_nodes_outside_are_counted_and_named():
    labels = volume.from_array(LABELS, "xyz", source="seg.zarr")
    with pytest.raises(
        InputError, match=r"2 of 3 nodes of skeleton.pkl \(skeletons 2,"
    ):
        nodes.read_node_segments(labels, at([(0, 0, 0), (9, 0, 0), (0, -1, 0)]))


def test_affinities_are_not_labels():
    labels = volume.from_array(LABELS.astype(np.float32), "xyz", source="raw.h5")
    with pytest.raises(
        InputError, match="raw.h5 holds float32 .* wanted integer label"
    ):
        nodes.read_node_segments(labels, at([(0, 0, 0)]))
