"""Tables of values against numpy on the values themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.qc import border
from nisbjax.qc.border import ValueCounts, border_planes


def counted(values, pieces=1):
    table = ValueCounts.empty()
    for piece in np.array_split(np.asarray(values, np.float32), pieces):
        table.add(piece)
    return table


def test_a_table_by_hand():
    # 0.2 twice, 0.4 once, 0.8 once; NaN and Inf are no values. Mean 1.6 / 4 = 0.4; the
    # quantile .95 lies at place .95 x 3 = 2.85: 0.4 + .85 x (0.8 - 0.4) = 0.74.
    table = counted([0.4, np.nan, 0.2, 0.8, np.inf, 0.2], pieces=3)
    assert table.total == 4
    assert table.values.tolist() == pytest.approx([0.2, 0.4, 0.8])
    assert table.counts.tolist() == [2, 1, 1]
    assert table.mean == pytest.approx(0.4)
    assert table.quantile(0.95) == pytest.approx(0.74)
    assert table.share_above(0.5) == 0.25


@given(
    st.lists(st.floats(0, 1, width=16), min_size=1, max_size=60),
    st.integers(1, 5),
    st.floats(0, 1),
)
def test_halves_are_counted_exactly(values, pieces, q):
    table = counted(values, pieces)
    values = np.array(values, np.float32)
    assert table.total == values.size
    assert table.mean == pytest.approx(values.mean(dtype=np.float64))
    assert table.quantile(q) == pytest.approx(np.quantile(values, q), abs=1e-6)
    assert table.share_above(0.5) == (values > 0.5).mean()


def test_nothing_has_no_figures():
    table = counted([])
    assert table.total == 0
    assert np.isnan([table.mean, table.quantile(0.95), table.share_above(0.5)]).all()


def test_a_table_does_not_grow(monkeypatch):
    monkeypatch.setattr(border, "_MOST_VALUES", 500)
    values = np.random.default_rng(0).random(20_000, np.float32)
    table = counted(values, pieces=40)
    assert table.settle().values.size <= 500
    assert table.total == values.size
    assert table.mean == pytest.approx(values.mean(dtype=np.float64), abs=1e-5)
    # A row stands for two to eight shares of 1 / 500 of the values.
    assert table.quantile(0.95) == pytest.approx(np.quantile(values, 0.95), abs=0.02)


def test_more_rows_than_planes_are_all_planes_at_no_cost():
    # Margin 1 of 10 planes: 1 to 8; a thousand million rows would take 8 GB.
    assert border_planes(10, 10**9) == border_planes(10, 1000) == tuple(range(1, 9))
