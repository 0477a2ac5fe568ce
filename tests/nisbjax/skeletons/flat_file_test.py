"""Our npz: refused where its arrays are no skeletons."""

import numpy as np
import pytest

from nisbjax import skeletons
from nisbjax.errors import InputError

ARRAYS = {
    "node_id": np.array([7, 7]),
    "index_position": np.array([[0, 0, 0], [1, 0, 0]]),
    "position_nm": np.array([[0.0, 0, 0], [9, 0, 0]]),
    "edges": np.array([[0, 1]]),
}


def load(tmp_path, **changes):
    arrays = {k: v for k, v in {**ARRAYS, **changes}.items() if v is not None}
    np.savez(tmp_path / "s.npz", **arrays)
    return skeletons.load(tmp_path / "s.npz")


def test_arrays_of_another_program(tmp_path):
    found = load(tmp_path, node_id=np.array([7, 7], np.uint8), more=np.zeros(3))
    assert found.node_id.dtype == np.int64 and found.edge_lengths_nm.tolist() == [9]
    lone = {"node_id": ARRAYS["node_id"][:1], "edges": np.zeros((0, 2), int)}
    lone |= {k: ARRAYS[k][:1] for k in ("index_position", "position_nm")}
    assert len(load(tmp_path, **lone).edges) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"edges": None},
            "s.npz has node_id, .*; wanted the arrays node_id, index_posi",
        ),
        (
            {"node_id": np.array(["a", "b"])},
            "node_id is of type <U1; wanted whole numb",
        ),
        ({"node_id": np.array([1 << 63] * 2, np.uint64)}, "node_id is of type uint64"),
        (
            {"node_id": np.array([7.0, 7])},
            "node_id is of type float64; wanted whole nu",
        ),
        (
            {"position_nm": np.zeros((2, 3), int)},
            "position_nm is of type int64; wanted f",
        ),
        ({"index_position": np.zeros((2, 2), int)}, "index_position has shape .2, 2."),
        ({"index_position": np.zeros((3, 3), int)}, "index_position has shape .3, 3."),
        ({"edges": np.array([0, 1])}, "edges has shape .2,., with 2 nodes"),
        ({"edges": np.array([[0, 2]])}, "has edges to nodes that it does not hold"),
        ({"edges": np.array([[-1, 0]])}, "has edges to nodes that it does not hold"),
        (
            {"position_nm": np.full((2, 3), np.nan)},
            "position_nm of some nodes is not fi",
        ),
        (
            {"node_id": np.array([{}, {}])},
            "s.npz is no whole npz .Object arrays cannot",
        ),
    ],
)
def test_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, **changes)


def test_no_nodes_too_many_and_damage(tmp_path):
    none = {k: v[:0] for k, v in ARRAYS.items()}
    with pytest.raises(InputError, match="s.npz holds no node; wanted skeletons"):
        load(tmp_path, **none)
    many = {k: np.repeat(v, 500, axis=0) for k, v in ARRAYS.items()}
    assert len(load(tmp_path, **many).node_id) == 1000
    # 1000 nodes and 500 edges take 8 * (7 * 1000 + 2 * 500) bytes
    for most, message in (
        (999, "holds 1000 nodes, over the limit 999"),
        (400, "goes be"),
    ):
        with pytest.raises(InputError, match=f"s.npz {message}"):
            skeletons.load(tmp_path / "s.npz", max_nodes=most)
    (tmp_path / "s.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="s.npz is no whole npz"):
        skeletons.load(tmp_path / "s.npz")
