"""NISB's pickle: of every protocol and release, written, and without what is needed."""

import pathlib
import pickle

import networkx as nx
import numpy as np
import pytest
from small_skeletons import check_tiny, tiny_graph, written

from nisbjax import skeletons
from nisbjax.errors import InputError
from nisbjax.skeletons import nisb_file


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_every_pickle_protocol(tmp_path, protocol):
    check_tiny(skeletons.load(written(tmp_path, tiny_graph(), protocol)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_values_and_cached_views(tmp_path, protocol):
    graph = nx.Graph()
    for node, data in tiny_graph().nodes(data=True):
        graph.add_node(
            np.int64(node),
            id=np.uint16(data["id"]),
            index_position=np.array(data["index_position"]),
            nm_position=np.array(data["nm_position"], ">f8"),
        )
    graph.add_edge(4, 3, weight=np.float32(2))
    graph.add_edge(5, 3)
    # asking for the views leaves them in the graph, and in its pickle
    _ = graph.nodes, graph.edges, graph.degree, graph.adj
    check_tiny(skeletons.load(written(tmp_path, graph, protocol)))


# Written by these releases themselves: `tiny_graph` with its views asked for. Releases
# below 2.5 keep the factories of their dictionaries (the builtin `dict`) in each graph,
# 1.11 names its dictionaries `node` and `adj`, later ones cache their views there.
RELEASES = sorted((pathlib.Path(__file__).parent / "pickles").glob("*.pkl"))


@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
def test_pickles_of_networkx_releases(path):
    check_tiny(skeletons.load(path))


def test_there_are_pickles_of_networkx_1_2_and_3():
    assert {path.stem.split("_")[1][0] for path in RELEASES} == set("123")


def test_edges_in_the_order_of_networkx(tmp_path):
    graph = nx.gnm_random_graph(30, 60, seed=1)
    for node in graph:
        where = (node, 0, 0)
        graph.add_node(node, id=1, index_position=where, nm_position=where)
    graph.add_edge(7, 7)
    loaded = skeletons.load(written(tmp_path, graph))
    assert loaded.edges.tolist() == [list(edge) for edge in graph.edges]


def test_real_file_equals_networkx(shared_data):
    path = shared_data / "fib25" / "val" / "seed1" / "skeleton.pkl"
    graph = pickle.loads(path.read_bytes())
    loaded = skeletons.load(path)
    rows = {node: row for row, node in enumerate(graph)}
    assert loaded.node_id.tolist() == [d["id"] for _, d in graph.nodes(data=True)]
    assert loaded.edges.tolist() == [[rows[u], rows[v]] for u, v in graph.edges]
    assert loaded.voxel_size_nm() == pytest.approx([10, 10, 10])


def test_voxel_size_stands_in_for_missing_nm_positions(tmp_path):
    graph = tiny_graph()
    for _, data in graph.nodes(data=True):
        del data["nm_position"]
    path = written(tmp_path, graph)
    check_tiny(skeletons.load(path, voxel_size_nm=(9.0, 9.0, 12.0)))
    with pytest.raises(InputError, match="4 of 4 nodes have no 'nm_position'"):
        skeletons.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "1 of 4 nodes have no 'id', the first of them at row 0"),
        ({"id": 1.5}, "'id' of some nodes is not a whole number"),
        ({"id": 1 << 63}, "'id' of some nodes is not a whole number that fits int64"),
        ({"id": "axon"}, "'id' of some nodes is not a number"),
        ({"index_position": (1, 2)}, "'index_position' .* is not three numbers"),
        ({"index_position": (1, 2, 0.5)}, "'index_position' .* not a whole number"),
        ({"nm_position": (1.0, float("nan"), 2.0)}, "'nm_position' .* not finite"),
    ],
)
def test_nodes_without_what_is_needed(tmp_path, change, message):
    graph = tiny_graph()
    graph.nodes[5].update(change)
    with pytest.raises(InputError, match=message):
        skeletons.load(written(tmp_path, graph))


def test_edges_to_nowhere_and_one_way(tmp_path):
    graph = tiny_graph()
    graph._adj[5][99] = {}
    with pytest.raises(InputError, match="edges to nodes that it does not hold"):
        skeletons.load(written(tmp_path, graph))
    graph = tiny_graph()
    del graph._adj[3][5]
    with pytest.raises(InputError, match="directed graph; wanted an undirected one"):
        skeletons.load(written(tmp_path, graph))


def test_what_is_written_is_what_the_reference_loads(tmp_path):
    """BANIS: `pickle.load` of one graph, positions and ids from its nodes' attributes."""
    loaded = skeletons.load(written(tmp_path, tiny_graph()))
    nisb_file.write(loaded, tmp_path / "again.pkl")
    graph = pickle.loads((tmp_path / "again.pkl").read_bytes())
    assert type(graph) is nx.Graph
    # nodes 5 3 4 9 are rows 0 1 2 3
    assert graph.nodes[2] == {
        "id": 11,
        "index_position": (1, 2, 3),
        "nm_position": (9.0, 18.0, 36.0),
    }
    assert sorted(graph.edges) == [(0, 1), (1, 2)]
    check_tiny(skeletons.load(tmp_path / "again.pkl"))
