"""Merged tables against a dictionary of sums."""

import collections
import pathlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.decode.agglomeration import tables

KEYS = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2))
TABLES = st.lists(
    st.dictionaries(KEYS, st.tuples(st.integers(1, 9), st.integers(-9, 9))), max_size=6
)


def rows_of(content):
    rows = [[*key, *values] for key, values in sorted(content.items())]
    return np.array(rows, np.int64).reshape(-1, 5)


def written(folder, contents):
    paths = [folder / f"{i}.rows" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        tables.write(path, rows_of(content))
    return paths


def summed(contents):
    found = collections.defaultdict(lambda: (0, 0))
    for content in contents:
        for key, (number, total) in content.items():
            found[key] = found[key][0] + number, found[key][1] + total
    return rows_of(found)


@given(TABLES, st.integers(1, 9))
def test_merging_adds_what_tables_say_of_one_pair(tmp_path_factory, contents, room):
    folder = pathlib.Path(tmp_path_factory.mktemp("tables"))
    output = folder / "merged"
    paths = written(folder, contents)
    assert tables.merge(paths, output, rows_at_once=room) == len(summed(contents))
    np.testing.assert_array_equal(tables.read(output), summed(contents))
    blocks = list(tables.blocks(output, 13))  # a pair has 3 kinds at most here
    np.testing.assert_array_equal(
        np.concatenate([np.empty((0, 5), np.int64), *blocks]), summed(contents)
    )
    pairs = [{tuple(row) for row in block[:, :2].tolist()} for block in blocks]
    assert sum(map(len, pairs)) == len(set().union(*pairs))


def test_many_tables_are_merged_in_passes(tmp_path):
    # 130 tables are more than twice 64: three merges, then one of what they made.
    contents = [{(1, i % 7 + 2, 0): (1, i)} for i in range(130)]
    paths = written(tmp_path, contents)
    tables.merge(paths, tmp_path / "merged", rows_at_once=100)
    np.testing.assert_array_equal(tables.read(tmp_path / "merged"), summed(contents))
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in paths} | {"merged"}
