"""Pickles of graphs: hostile ones, damaged ones, and graphs of other kinds."""

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
from small_skeletons import check_tiny, tiny_graph, written

from nisbjax import skeletons
from nisbjax.errors import InputError


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


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, 7, "text"])
def test_not_a_graph(tmp_path, content):
    with pytest.raises(InputError, match="holds .*; wanted one pickled networkx.Graph"):
        skeletons.load(written(tmp_path, content))
