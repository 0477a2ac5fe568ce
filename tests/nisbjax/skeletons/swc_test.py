"""SWC written by hand and by osteoid, and every line that cannot be."""

import numpy as np
import pytest

from nisbjax import skeletons
from nisbjax.errors import InputError
from nisbjax.skeletons import swc

VOXEL = (10.0, 10.0, 20.0)
# A fork whose lines come in no order: root 5 at voxel (1 2 3), 9 and 2 on it, 7 on 9.
FORK = """# made by hand, in nm
 9 3 10.0 20.0 80.0 0.5 5

2 3 30 20 60 nan 5   # a comment
5 1 10 20 60 2.0 -1
7 3 10 20 100 .5 9 an_eighth_column
"""


def load(tmp_path, text, name="a.swc", suffix="", **options):
    (tmp_path / name).write_text(text)
    return skeletons.load(f"{tmp_path / name}{suffix}", voxel_size_nm=VOXEL, **options)


def test_a_fork(tmp_path):
    found = load(tmp_path, FORK)
    # z: 80 / 20 = 4, 60 / 20 = 3, 100 / 20 = 5
    assert found.index_position.tolist() == [[1, 2, 4], [3, 2, 3], [1, 2, 3], [1, 2, 5]]
    assert found.position_nm[1].tolist() == [30, 20, 60]
    assert found.edges.tolist() == [[2, 0], [2, 1], [0, 3]]
    assert found.node_id.tolist() == [1] * 4
    assert found.edge_lengths_nm.tolist() == [20, 20, 20]


@pytest.mark.parametrize(
    ("unit", "factor"), [("um", 1e-3), ("nm", 1), ("voxels", None)]
)
def test_units(tmp_path, unit, factor):
    nm = np.array([[5.0, 15, 30], [5, 15, 230]])
    there = nm / VOXEL if factor is None else nm * factor
    text = "".join(
        f"{i} 0 {x} {y} {z} 1 {i - 1 or -1}\n" for i, (x, y, z) in enumerate(there, 1)
    )
    found = load(tmp_path, text, suffix=f"#{unit}")
    assert np.allclose(found.position_nm, nm)
    assert found.index_position.tolist() == [[0, 1, 1], [0, 1, 11]]


def test_nm_that_cannot_be(tmp_path):
    """Edges of 1 (um or voxels) are a tenth of a voxel as nm; said to be nm, they pass."""
    text = "1 0 0 0 0 1 -1\n2 0 1 0 0 1 1\n3 0 2 0 0 1 2\n"
    message = "half of its edges are shorter than 1, which as nm is 0.1 voxels; say the"
    with pytest.raises(InputError, match=message):
        load(tmp_path, text)
    assert load(tmp_path, text, suffix="#nm").index_position[2].tolist() == [0, 0, 0]
    assert load(tmp_path, text, suffix="#voxels").index_position[2].tolist() == [
        2,
        0,
        0,
    ]


def test_files_of_osteoid(tmp_path):
    osteoid = pytest.importorskip("osteoid")
    places = np.array([[0, 0, 0], [10, 0, 20], [20, 10, 40], [20, 30, 40]], np.float32)
    lines = np.array([[0, 1], [1, 2], [2, 3]], np.uint32)
    made = osteoid.Skeleton(places, lines, np.ones(4, np.float32))
    found = load(tmp_path, made.to_swc())
    assert sorted(found.index_position.tolist()) == [
        [0, 0, 0],
        [1, 0, 1],
        [2, 1, 2],
        [2, 3, 2],
    ]
    # sqrt(100 + 400), sqrt(100 + 100 + 400), 20
    wanted = [20, 500**0.5, 600**0.5]
    assert np.sort(found.edge_lengths_nm) == pytest.approx(wanted, rel=1e-4)
    # and osteoid reads ours
    swc.write(found, tmp_path / "out")
    again = osteoid.Skeleton.from_swc((tmp_path / "out" / "1.swc").read_text())
    assert again.cable_length() == pytest.approx(sum(wanted), rel=1e-4)


ROOT = "1 0 0 0 0 1 -1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "a.swc has no node; wanted lines of id type x y z r parent"),
        (f"{ROOT}2 0 0 0 90 1\n", "a.swc, line 2: 6 columns; wanted id type x y z rad"),
        (
            f"{ROOT}2 0 0 zero 0 1 1\n",
            "line 2: '2 0 0 zero 0 1 1' is not id type x y z",
        ),
        (f"{ROOT}2.5 0 0 0 0 1 1\n", "line 2: '2.5 0 0 0 0 1 1' is not id type"),
        (f"{ROOT}2 0 0 nan 0 1 1\n", "line 2: the position is 0.0 nan 0.0; wanted fin"),
        (f"{ROOT}2 0 0 0 inf 1 1\n", "line 2: the position is 0.0 0.0 inf; wanted fin"),
        (f"{ROOT}-2 0 0 0 90 1 1\n", "line 2: the node is -2; wanted 0 or more"),
        (f"{ROOT}1 0 0 0 90 1 1\n", "line 2: node 1 is there twice"),
        (
            f"{ROOT}\n2 0 0 0 90 1 4\n",
            "line 3: its parent is node 4, which there is no",
        ),
        (
            f"{ROOT}2 0 0 0 90 1 4\n3 0 0 0 0 1 2\n4 0 0 0 0 1 3\n",
            "line 2: node 2 has no root, its parents go round in a circle",
        ),
        (f"{ROOT}2 0 0 0 90 1 2\n", "line 2: node 2 has no root"),
        (f"{ROOT}2 0 0 0 1e99 1 1\n", "a.swc has positions beyond 1e.12 nm"),
    ],
)
def test_a_file_that_is_no_tree_of_numbers(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, text)


def test_too_many_nodes(tmp_path):
    with pytest.raises(InputError, match="a.swc goes beyond the limit of nodes"):
        load(tmp_path, FORK, max_nodes=3)


def test_loops_are_not_written(tmp_path):
    found = load(tmp_path, FORK)
    edges = np.concatenate([found.edges, [[1, 3]]])
    loop = skeletons.Skeletons(
        found.node_id, found.index_position, found.position_nm, edges
    )
    with pytest.raises(
        InputError, match="memory has loops .4 edges of 4 nodes in 1 pie"
    ):
        swc.write(loop, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pieces_and_ids_are_written_in_their_order(tmp_path):
    """Id 4: rows 0-3-1 and, apart, 5; id 2: rows 2-4, and 4 hangs on 5 of the other id."""
    place = np.arange(18.0).reshape(6, 3) * 100
    found = skeletons.Skeletons(
        np.array([4, 4, 2, 4, 2, 4]),
        place.astype(np.int64),
        place,
        np.array([[0, 3], [1, 3], [2, 4], [4, 5]]),
        "drawn",
    )
    swc.write(found, tmp_path)
    lines = {
        one: [
            line.split()
            for line in (tmp_path / f"{one}.swc").read_text().splitlines()[1:]
        ]
        for one in (2, 4)
    }
    # node, x (300 times the row) and parent
    told = {k: [(w[0], w[2], w[6]) for w in v] for k, v in lines.items()}
    assert told[4] == [
        ("1", "0", "-1"),
        ("2", "900", "1"),
        ("3", "300", "2"),
        ("4", "1500", "-1"),
    ]
    assert told[2] == [("1", "600", "-1"), ("2", "1200", "1")]
