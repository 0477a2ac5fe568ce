"""Skeleton files: whole, cached, damaged and hostile ones."""

import builtins
import collections
import datetime
import os
import pathlib
import pickle
import subprocess

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax import skeletons
from nisbjax.errors import InputError


def tiny_graph() -> nx.Graph:
    """A path 5-3-4 of segment 11 and a lone node 9 of segment 12; 9 x 9 x 12 nm."""
    graph = nx.Graph()
    for node, segment, index in (
        (5, 11, (0, 0, 0)),
        (3, 11, (1, 0, 0)),
        (4, 11, (1, 2, 3)),
        (9, 12, (4, 4, 4)),
    ):
        nm = tuple(float(i * v) for i, v in zip(index, (9, 9, 12), strict=True))
        graph.add_node(node, id=segment, index_position=index, nm_position=nm)
    graph.add_edge(4, 3)
    graph.add_edge(5, 3)
    return graph


def written(tmp_path, content, protocol=4):
    path = tmp_path / "skeleton.pkl"
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    path.write_bytes(data)
    return path


def check_tiny(loaded: skeletons.Skeletons) -> None:
    # rows follow the file's nodes 5 3 4 9
    assert loaded.node_id.tolist() == [11, 11, 11, 12]
    assert loaded.index_position.tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 2, 3],
        [4, 4, 4],
    ]
    assert loaded.position_nm.dtype == np.float64
    assert loaded.position_nm[2].tolist() == [9, 18, 36]
    assert loaded.edges.tolist() == [[0, 1], [1, 2]]
    # |(9, 18, 36) - (9, 0, 0)| = sqrt(18^2 + 36^2)
    assert loaded.edge_lengths_nm == pytest.approx([9, 1620**0.5])


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


def test_cache_is_keyed_by_content(tmp_path):
    path, cache = written(tmp_path, tiny_graph()), tmp_path / "run"
    check_tiny(skeletons.load(path, cache=cache))
    (kept,) = cache.glob("skeletons_*.npz")
    check_tiny(skeletons.load(path, cache=cache))
    graph = tiny_graph()
    graph.nodes[5]["id"] = 77
    changed = skeletons.load(written(tmp_path, graph), cache=cache)
    assert changed.node_id[0] == 77
    assert len(list(cache.glob("*"))) == 2
    assert kept.exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    path, cache = written(tmp_path, tiny_graph()), tmp_path / "run"
    skeletons.load(path, cache=cache)
    (kept,) = cache.glob("skeletons_*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    check_tiny(skeletons.load(path, cache=cache))
    assert kept.read_bytes() == whole


def test_voxel_size_stands_in_for_missing_nm_positions(tmp_path):
    graph = tiny_graph()
    for _, data in graph.nodes(data=True):
        del data["nm_position"]
    path = written(tmp_path, graph)
    check_tiny(skeletons.load(path, voxel_size_nm=(9.0, 9.0, 12.0)))
    with pytest.raises(InputError, match="4 of 4 nodes have no 'nm_position'"):
        skeletons.load(path)


def test_a_voxel_size_that_disagrees_is_reported(tmp_path):
    loaded = skeletons.load(written(tmp_path, tiny_graph()))
    assert loaded.resolution_note((9.0, 9.0, 12.0)) == ""
    # the tutorial's file says 18 x 18 x 25, which is another volume's
    note = loaded.resolution_note((18.0, 18.0, 25.0))
    assert "voxels of (9, 9, 12) nm, but data.voxel_size_nm is (18, 18, 25)" in note


# --- hostile files --------------------------------------------------------------------


class Attack:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (builtins.eval, ("open('{}', 'w')",), "builtins.eval"),
        (builtins.exec, ("open('{}', 'w')",), "builtins.exec"),
        (builtins.getattr, (object, "__subclasses__"), "builtins.getattr"),
        (builtins.open, ("{}", "w"), "(_io|io|builtins).open"),
        (subprocess.Popen, (("touch", "{}"),), "(subprocess|commands).Popen"),
        (np.load, ("{}",), "numpy.*load"),
        (nx.read_gml, ("{}",), "networkx.*read_gml"),
        (nx.DiGraph, (), "networkx.classes.digraph.DiGraph"),
        (bytearray, (10**10,), "builtins.bytearray"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_are_refused_by_name_and_not_run(
    tmp_path, function, arguments, name, protocol
):
    trace = tmp_path / "ran"
    placed = tuple(
        tuple(x.format(trace) for x in a)
        if isinstance(a, tuple)
        else a.format(trace)
        if isinstance(a, str)
        else a
        for a in arguments
    )
    graph = tiny_graph()
    graph.graph["attack"] = Attack(function, *placed)
    path = written(tmp_path, graph, protocol)
    name = name.replace("builtins", "(builtins|__builtin__)")
    with pytest.raises(InputError, match=rf"refused: the pickle names {name}"):
        skeletons.load(path)
    assert not trace.exists()


# Each is a program for the pickle machine that stays within allowed names.
GRAPH = b"cnetworkx.classes.graph\nGraph\n"
CRAFTED = {
    # BUILD on the class itself, to replace how it takes its state
    "seal": GRAPH + b"(NcBuiltin\n" + b".",
    "build_on_class": GRAPH
    + b"N}X\x0c\x00\x00\x00__setstate__cbuiltins\nlist\ns\x86b.",
    # a numpy array of ten million million entries out of nothing
    "vast_array": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftX"
        b"\x02\x00\x00\x00i8tR."
    ),
    # numpy objects made from raw bytes: pointers of the attacker's choice
    "object_dtype": (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00O8"
        b"\x89\x88tRC\x08AAAAAAAAtR."
    ),
    # many full copies of one list
    "copies": b"cbuiltins\nlist\n(](K\x01K\x02etR.",
    "persistent_id": b"Pfile\n.",
    "extension_code": b"\x82\x01.",
    "reconstruct_object": (
        b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR."
    ),
    "other_encoding": (
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00rot_13tR."
    ),
    # a memo of 2^31 entries; a string of a terabyte; a frame of a terabyte
    "vast_memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "vast_memo_as_text": b"Np2147483647\n.",
    "vast_string": b"\x80\x04\x8d\x00\x00\x00\x00\x00\x01\x00\x00abc.",
    "vast_frame": b"\x80\x04\x95\x00\x00\x00\x00\x00\x01\x00\x00N.",
    "number": b"cbuiltins\nint\n(X\x01\x00\x00\x001tR.",
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_pickles_are_refused(tmp_path, name):
    path = written(tmp_path, CRAFTED[name])
    with pytest.raises(InputError, match=r"skeleton\.pkl"):
        skeletons.load(path)
    # and leave the reader as it was
    check_tiny(skeletons.load(written(tmp_path, tiny_graph())))


@given(st.data())
def test_damaged_files_give_one_clear_line(tmp_path_factory, data):
    whole = bytearray(pickle.dumps(tiny_graph()))
    cut = data.draw(st.integers(0, len(whole)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.mktemp("damaged"), bytes(whole[:cut]))
    try:
        skeletons.load(path)
    except InputError as error:
        assert "\n" not in str(error)


# A graph whose one node has a given key and attributes.
ONE_NODE = (
    b"\x80\x02cnetworkx.classes.graph\nGraph\n)\x81}(X\x05\x00\x00\x00_node}%s%ss"
    b"X\x04\x00\x00\x00_adj}ub."
)
WORST = {
    "nested key": (ONE_NODE % (b"K\x01" + b"2\x86" * 90, b"}"), "far more values"),
    "broad key": (
        ONE_NODE % (b"K\x01" + b"2\x86" * 8, b"}"),
        "nested or long tuples, or long numbers, as keys",
    ),
    "broad value": (
        ONE_NODE % (b"K\x01", b"}X\x02\x00\x00\x00idK\x01" + b"2\x86" * 33 + b"s"),
        "far more values",
    ),
    "deep value": (
        ONE_NODE % (b"K\x01", b"}X\x02\x00\x00\x00id)" + b"\x85" * 10**6 + b"s"),
        "levels deep",
    ),
    "lists": (
        ONE_NODE % (b"K\x01", b"}X\x02\x00\x00\x00id]]]aas"),
        "'id' of some nodes is not a number",
    ),
    "wide id": (
        ONE_NODE
        % (
            b"K\x01",
            b"}X\x02\x00\x00\x00id\x8b"
            + (2500).to_bytes(4, "little")
            + b"\x7f" * 2500
            + b"s",
        ),
        "of more than 136 bits",
    ),
    "id of 100 bits": (
        ONE_NODE % (b"K\x01", b"}X\x02\x00\x00\x00id\x8a\x0d" + b"\x7f" * 13 + b"s"),
        "'id' of some nodes is not a number",
    ),
    "text as a number": (
        ONE_NODE % (b"K\x01", b"}X\x02\x00\x00\x00idX\x01\x00\x00\x005s"),
        "'id' of some nodes is not a number",
    ),
    "list as a node": (ONE_NODE % (b"K\x01", b"]"), "nodes that are no dicts"),
    "number as a node": (ONE_NODE % (b"K\x01", b"K\x02"), "nodes that are no dicts"),
}


@pytest.mark.parametrize("name", WORST)
def test_pickles_that_took_all_time_or_memory(tmp_path, name):
    program, said = WORST[name]
    with pytest.raises(InputError, match=said) as caught:
        skeletons.load(written(tmp_path, program))
    assert len(str(caught.value)) < 400


def test_frozen_graphs_and_what_is_kept_beside_a_graph(tmp_path):
    graph = nx.freeze(tiny_graph())
    graph.graph |= {
        "made": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        "from": pathlib.Path("skeletons.nml"),
        "sizes": collections.Counter("aab"),
        "last": collections.deque([1, 2]),
        "name": np.str_("seed5"),
        "voxel": np.array([9, 9, 12]),
        "labels": np.array(["axon", "dendrite"]),
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        check_tiny(skeletons.load(written(tmp_path, graph, protocol)))


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (nx.DiGraph, "a directed graph; pickle its G.to_undirected"),
        (nx.MultiGraph, "a graph of several edges between two nodes; pickle nx.Graph"),
        (nx.MultiDiGraph, "a directed graph of several edges; pickle nx.Graph"),
        (lambda g: g.subgraph([5, 3]), "a view of a graph; pickle its G.copy"),
    ],
)
def test_graphs_of_other_kinds_are_named(tmp_path, graph, said):
    with pytest.raises(InputError, match=said):
        skeletons.load(written(tmp_path, graph(tiny_graph())))


def test_a_graph_without_nodes(tmp_path):
    with pytest.raises(InputError, match="a graph without nodes; wanted skeletons"):
        skeletons.load(written(tmp_path, nx.Graph()))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "skeleton.pkl")
    with pytest.raises(InputError, match=r"no skeleton file at .*skeleton.pkl"):
        skeletons.load(tmp_path / "skeleton.pkl")


# --- files that hold something else ---------------------------------------------------


def test_no_file(tmp_path):
    with pytest.raises(
        InputError, match="no skeleton file at .*evaluate.skeleton=FILE"
    ):
        skeletons.load(tmp_path / "absent.pkl")


def test_too_large(tmp_path):
    path = written(tmp_path, tiny_graph())
    with pytest.raises(InputError, match="bytes, more than the limit of 100"):
        skeletons.load(path, max_bytes=100)
    with pytest.raises(InputError, match="4 nodes, over the limit 3"):
        skeletons.load(path, max_nodes=3)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, 7, "text"])
def test_not_a_graph(tmp_path, content):
    with pytest.raises(InputError, match="holds .*; wanted one pickled networkx.Graph"):
        skeletons.load(written(tmp_path, content))


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
