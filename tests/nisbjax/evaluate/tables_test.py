"""Tables of skeletons, mergers and splits of one small made case."""

import csv

import numpy as np
import pytest

from nisbjax.evaluate import nerl, node_pairs, tables
from nisbjax.skeletons import Skeletons

# Three skeletons along x, 10 nm a step; rows and segments:
#   skeleton 4: rows 0-4   segments 7 7 8 8 8     split between rows 1 and 2
#   skeleton 5: rows 5-8   segments 9 9 9 0       omitted edge 7-8
#   skeleton 6: rows 9-11  segments 9 9 9         shares 9 with skeleton 5
SKELETONS = Skeletons(
    node_id=np.repeat([4, 5, 6], [5, 4, 3]).astype(np.int64),
    index_position=np.stack([np.arange(12)] * 3, axis=1).astype(np.int64),
    position_nm=np.stack([10.0 * np.arange(12), np.zeros(12), np.zeros(12)], axis=1),
    edges=np.array([(i, i + 1) for i in range(11) if i not in (4, 8)], np.int64),
)
COUNTS = node_pairs.overlap(SKELETONS, np.array([7, 7, 8, 8, 8, 9, 9, 9, 0, 9, 9, 9]))


def test_per_skeleton():
    table = tables.per_skeleton(SKELETONS, COUNTS)
    assert table["skeleton"].tolist() == [4, 5, 6]
    assert table["length_nm"].tolist() == [40, 30, 20]
    # skeleton 4: 10 nm in 7, 20 nm in 8: (100 + 400) / 40 = 12.5
    assert table["erl_nm"].tolist() == [12.5, 0, 0]
    assert table["nerl"].tolist() == [12.5 / 40, 0, 0]
    assert table["correct_nm"].tolist() == [30, 0, 0]
    assert table["split_nm"].tolist() == [10, 0, 0]
    assert table["merged_nm"].tolist() == [0, 20, 20]
    assert table["omitted_nm"].tolist() == [0, 10, 0]
    assert table["coverage"].tolist() == [0, 0.25, 0]
    assert table["n_segments"].tolist() == [2, 1, 1]
    assert table["main_segment"].tolist() == [8, 9, 9]
    assert table["shares_segment"].tolist() == [False, True, True]
    # the ERL of all is the length-weighted mean of the skeletons' own
    score = nerl.score(SKELETONS, np.array([7, 7, 8, 8, 8, 9, 9, 9, 0, 9, 9, 9]))
    weighted = (table["erl_nm"] * table["length_nm"]).sum() / table["length_nm"].sum()
    assert score["erl"] == pytest.approx(weighted)


def test_worst_mergers():
    table = tables.worst_mergers(SKELETONS, COUNTS)
    assert table["segment"].tolist() == [9]
    assert table["n_skeletons"].tolist() == [2]
    assert table["lost_nm"].tolist() == [40]
    assert (table["skeleton_a"][0], table["skeleton_b"][0]) == (5, 6)
    # rows 5-7 against rows 9-11: row 9 is the nearest of skeleton 6
    assert [int(table[a][0]) for a in "xyz"] == [9, 9, 9]


def test_worst_splits():
    table = tables.worst_splits(SKELETONS, COUNTS)
    assert table["skeleton"].tolist() == [4]
    assert {table["segment_a"][0], table["segment_b"][0]} == {7, 8}
    assert table["cut_nm"].tolist() == [10]
    assert table["x"].tolist() == [1]


def test_no_errors_give_empty_tables():
    counts = node_pairs.overlap(SKELETONS, SKELETONS.node_id)
    assert len(tables.worst_mergers(SKELETONS, counts)["x"]) == 0
    assert len(tables.worst_splits(SKELETONS, counts)["x"]) == 0


def test_all_background_gives_empty_tables():
    counts = node_pairs.overlap(SKELETONS, np.zeros(12, np.int64))
    assert len(tables.worst_mergers(SKELETONS, counts)["x"]) == 0
    assert len(tables.worst_splits(SKELETONS, counts)["x"]) == 0
    assert tables.per_skeleton(SKELETONS, counts)["coverage"].tolist() == [1, 1, 1]


def test_files_hold_what_was_written(tmp_path):
    table = tables.per_skeleton(SKELETONS, COUNTS)
    tables.write_csv(table, tmp_path / "t.csv")
    with open(tmp_path / "t.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["skeleton"] for row in rows] == ["4", "5", "6"]
    assert rows[0]["nerl"] == "0.3125"
    tables.write_npz(table, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as arrays:
        assert arrays["length_nm"].tolist() == [40, 30, 20]
    assert len(list(tmp_path.iterdir())) == 2
