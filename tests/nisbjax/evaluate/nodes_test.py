"""Reading segments at nodes: the right values, and no chunk without nodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.evaluate import nodes
from nisbjax.skeletons import Skeletons
from nisbjax.store import volume


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


REGION = {"box": "2:6,0:8,3:7", "volume_shape": [9, 8, 7]}


def test_a_region_keeps_the_skeletons_inside_it():
    # nodes 0 and 3 lie outside 2:6 in x or 3:7 in z; of the path 0-1-2-3 one edge is left
    whole = at([(1, 0, 3), (2, 0, 3), (5, 7, 6), (5, 7, 2)])
    edges = np.array([(0, 1), (1, 2), (2, 3)])
    whole = Skeletons(
        whole.node_id, whole.index_position, whole.position_nm, edges, whole.source
    )
    part = volume.from_array(LABELS[2:6, :, 3:7].copy(), "xyz", REGION, "seg.zarr")
    found, note = nodes.in_region(whole, part)
    assert found.node_id.tolist() == [2, 3]
    assert found.index_position.tolist() == [[0, 0, 0], [3, 7, 3]]
    assert found.position_nm.tolist() == [[2, 0, 3], [5, 7, 6]]
    assert found.edges.tolist() == [[0, 1]]
    values = nodes.read_node_segments(part, found)
    assert values.tolist() == [LABELS[2, 0, 3], LABELS[5, 7, 6]]
    assert note == (
        "scored inside 2:6,0:8,3:7 of a volume of (9, 8, 7): 2 of 4 nodes, 1 of 3 edges; "
        "not the volume's NERL"
    )


def test_a_region_without_an_edge_is_refused():
    part = volume.from_array(LABELS[2:6, :, 3:7].copy(), "xyz", REGION, "seg.zarr")
    with pytest.raises(
        InputError, match="covers 2:6,0:8,3:7 of its volume, where skel"
    ):
        nodes.in_region(at([(2, 0, 3)]), part)


def test_a_whole_volume_keeps_all_and_refuses_strangers():
    everything = {"box": "0:9,0:8,0:7", "volume_shape": [9, 8, 7]}
    skeletons = at([(8, 7, 6)])
    for attributes in ({}, everything):
        whole = volume.from_array(LABELS, "xyz", attributes)
        assert nodes.in_region(skeletons, whole) == (skeletons, "")
        with pytest.raises(InputError, match="1 of 1 nodes"):
            nodes.in_region(at([(9, 0, 0)]), whole)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"box": 5, "volume_shape": [9, 9, 9]}, "box is 5; wanted text"),
        ({"box": "a", "volume_shape": [9, 9, 9]}, "a box was given as 'a'"),
        ({"box": "0:1,0:1,0:1", "volume_shape": "9"}, "volume_shape is '9'; wanted"),
        ({"box": "0:1,0:1,0:1", "volume_shape": [9, 9, 9.5]}, r"volume_shape\[2\] is"),
        ({"box": "0:9,0:1,0:1", "volume_shape": [9, 9, 9]}, "says that it is the box"),
    ],
)
def test_a_region_that_makes_no_sense(attributes, said):
    array = volume.from_array(
        np.ones((2, 2, 2), np.uint8), "xyz", attributes, "seg.zarr"
    )
    with pytest.raises(InputError, match=said):
        nodes.in_region(at([(0, 0, 0)]), array)
