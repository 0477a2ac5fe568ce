"""The kernels on numbers worked by hand, and against numpy on every kind of half."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.qc import plane_sums
from nisbjax.qc.statistics import PlaneSums


def sums(values):
    """Of [c x y z] float16 or float32."""
    planes = PlaneSums.empty(values.shape[0], values.shape[3])
    p = planes
    into = p.count, p.nan, p.inf, p.total, p.squares, p.low, p.high
    if values.dtype == np.float16:
        plane_sums.sum_halves(values.view(np.uint16), *into)
    else:
        plane_sums.sum_floats(values, *into)
    return planes


def test_a_plane_by_hand():
    """Planes of 1 x 4 voxels: {1, 2, -3, .5}, {NaN, Inf, -Inf, .25} and {NaN} alone."""
    columns = [[1, 2, -3, 0.5], [np.nan, np.inf, -np.inf, 0.25], [np.nan] * 4]
    for dtype in (np.float16, np.float32):
        values = np.array(columns, dtype).T.reshape(1, 1, 4, 3).copy()
        found = sums(values)
        assert found.count.tolist() == [[4, 1, 0]]
        assert found.nan.tolist() == [[0, 1, 4]]
        assert found.inf.tolist() == [[0, 2, 0]]
        # 1 + 2 - 3 + .5; 1 + 4 + 9 + .25.
        assert found.total.tolist() == [[0.5, 0.25, 0]]
        assert found.squares.tolist() == [[14.25, 0.0625, 0]]
        assert found.low.tolist() == [[-3, 0.25, np.inf]]
        assert found.high.tolist() == [[2, 0.25, -np.inf]]


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=40))
def test_halves_are_decoded_whatever_their_bits(bits):
    """Subnormals, both zeros, NaN of any payload: exact, as sums of float64 are."""
    values = np.array(bits, np.uint16).view(np.float16).reshape(1, 1, -1, 1)
    found = sums(values)
    wide = values.astype(np.float64).ravel()
    finite = wide[np.isfinite(wide)]
    assert found.count.item() == finite.size
    assert found.nan.item() == np.isnan(wide).sum()
    assert found.inf.item() == np.isinf(wide).sum()
    assert found.total.item() == sum(finite.tolist())
    assert found.squares.item() == sum((finite**2).tolist())
    if finite.size:
        assert (found.low.item(), found.high.item()) == (finite.min(), finite.max())
