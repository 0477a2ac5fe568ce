"""Programs of a few bytes that stand for more than a machine has, and ordinary ones."""

import datetime
import pickle
import pickletools
import subprocess
import sys
import uuid

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.store import pickle_bounds

# Two references to the last object, 100 times: a tree of 2^100 leaves.
DOUBLED = b"K\x01" + b"2\x86" * 100
HOSTILE = {
    "key of nested tuples": (b"}" + DOUBLED + b"Ns.", "far more"),
    "key of 2^8 items": (b"}" + b"K\x01" + b"2\x86" * 8 + b"Ns.", "as keys"),
    "set of nested tuples": (b"\x8f(" + b"K\x01" + b"2\x86" * 8 + b"\x90.", "as keys"),
    "frozen set": (b"(" + b"K\x01" + b"2\x86" * 8 + b"\x91.", "as keys"),
    "dict of marks": (b"(" + b"K\x01" + b"2\x86" * 8 + b"Nd.", "as keys"),
    "long tuple as a key": (b"}(" + b"K\x01" * 99 + b"tNs.", "as keys"),
    "value of 2^40 items": (b"}K\x01" + b"K\x01" + b"2\x86" * 40 + b"s.", "far more"),
    "list of 2^40 items": (b"](" + b"K\x01" + b"2\x86" * 40 + b"e.", "far more"),
    "10^6 tuples": (b")" + b"\x85" * 10**6 + b".", "levels deep"),
    "10^6 lists": (b"]" * 10**6 + b"a" * (10**6 - 1) + b".", "levels deep"),
    "10^5 dicts": (b"}K\x01" * 10**5 + b"}" + b"s" * 10**5 + b".", "levels deep"),
    "filled from outside": (b"]q\0]q\x01a0h\x01Na.", "that another one holds"),
    "holds itself": (b"]q\0h\0a.", "that another one holds"),
    "20,000 bits": (
        b"\x8b" + (2500).to_bytes(4, "little") + b"\x7f" * 2500 + b".",
        "136",
    ),
    "long number as a key": (
        b"}\x8a\x0a" + b"\x7f" * 10 + b"Ns.",
        "long numbers, as keys",
    ),
    "long numbers in a set": (b"\x8f(\x8a\x0a" + b"\x7f" * 10 + b"\x90.", "as keys"),
    "long number in a tuple": (b"}\x8a\x0a" + b"\x7f" * 10 + b"\x85Ns.", "as keys"),
    "23 digits as a key": (b"}L" + b"9" * 23 + b"L\nNs.", "as keys"),
    "255 bytes": (b"\x8a\xff" + b"\x7f" * 255 + b".", "of more than 136 bits"),
    "10,000 digits": (b"I" + b"9" * 10_000 + b"\n.", "of more than 136 bits"),
    "long of 10,000 digits": (b"L" + b"9" * 10_000 + b"L\n.", "of more than 136 bits"),
    "float of 10,000 digits": (b"F" + b"9" * 10_000 + b"\n.", "too long"),
    "name of 10,000": (b"c" + b"x" * 10_000 + b"\ny\n.", "too long"),
    "vast text": (b"\x8d" + b"\xff" * 8 + b"x.", "more bytes than the file"),
    "vast frame": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "more bytes than the file"),
    "vast memo": (b"Nr\xff\xff\xff\x7f.", "under a vast number"),
    "vast memo as text": (b"Np2147483647\n.", "under a vast number"),
    "empty stack": (b"0.", "from its stack"),
    "no mark": (b"NNt.", "from its stack"),
    "behind a mark": (b"N(\x85.", "from its stack"),
    "no memo": (b"h\xff" * 3 + b"j\xff\xff\xff\x7f.", "from its stack"),
    "no opcode": (b"\xff.", "an unknown opcode at byte 0"),
    "an extension": (b"\x82\x01.", "an unknown opcode"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_all_time_or_memory_is_named(name):
    program, said = HOSTILE[name]
    problem = pickle_bounds.problem(program)
    assert said in problem
    assert " at byte " in problem


SMALL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.text(max_size=300),
    st.binary(max_size=300),
)
KEYS = st.integers(-(2**63), 2**64)
VALUES = st.recursive(
    SMALL,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS | st.tuples(KEYS, st.text()), inner)
        | st.sets(KEYS)
        | st.frozensets(st.text())
    ),
    max_leaves=20,
)


@given(VALUES, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_ordinary_values_keep_the_bounds(value, protocol):
    wide = isinstance(value, int) and value.bit_length() > 127
    data = pickle.dumps(value, protocol)
    if not wide and not _has_wide(value):
        assert pickle_bounds.problem(data) == ""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_widest_number_that_is_no_key(protocol):
    value = uuid.UUID(int=2**128 - 1)
    assert pickle_bounds.problem(pickle.dumps({2**64 - 1: value}, protocol)) == ""


def _has_wide(value):
    """Whether an integer of more than 127 bits is somewhere in it."""
    if isinstance(value, int):
        return value.bit_length() > 127
    if isinstance(value, dict):
        return any(map(_has_wide, [*value, *value.values()]))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_has_wide, value))
    return False


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_graphs_of_all_kinds_of_keys_keep_the_bounds(protocol):
    """Nodes under tuples and numpy's numbers, shared attributes, more than one batch."""
    graph = nx.grid_graph((40, 30))
    shared = {"index_position": np.arange(3), "made": datetime.datetime(2020, 1, 1)}
    for node in graph:
        graph.nodes[node].update(shared)
    graph.add_edge(np.int64(3), np.int64(4))
    for made in (graph, nx.freeze(graph), nx.DiGraph(graph), graph.subgraph([(0, 0)])):
        assert pickle_bounds.problem(pickle.dumps(made, protocol)) == ""


PROGRAM = """
import resource, sys
from nisbjax.store import pickle_bounds
pickle_bounds.problem(b"N.")
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for line in sys.stdin:
    pickle_bounds.problem(bytes.fromhex(line))
print("done")
"""


def test_any_bytes_are_followed_to_an_end_in_little_memory():
    """20,000 programs of opcodes drawn at random, in a process of 4 GB."""
    draw = np.random.default_rng(0)
    opcodes = np.array([ord(o.code) for o in pickletools.opcodes])
    programs = [
        draw.choice(np.r_[opcodes, 0, 1], size=draw.integers(1, 60)).astype(np.uint8)
        for _ in range(20_000)
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="\n".join(program.tobytes().hex() for program in programs),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout == "done\n"
