"""Curves over many planes keep every peak."""

import numpy as np

from nisbjax.qc import pictures


def test_a_long_curve_keeps_its_peaks(monkeypatch):
    monkeypatch.setattr(pictures, "_POINTS", 3)
    # 7 planes in groups of 3: (.6 .1 .6), (.6 .6 NaN), (.9)
    z, values = pictures._curve(np.array([0.6, 0.1, 0.6, 0.6, 0.6, np.nan, 0.9]))
    assert z.tolist() == [0, 0, 3, 3, 6, 6]
    assert values.tolist() == [0.1, 0.6, 0.6, 0.6, 0.9, 0.9]
    z, values = pictures._curve(np.array([0.6, 0.1, np.nan]))
    assert z.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(values, [0.6, 0.1, np.nan])
    # A group without any value is a gap.
    _, values = pictures._curve(np.array([np.nan, np.nan, 0.5, 0.5]))
    np.testing.assert_array_equal(values, [np.nan, np.nan, 0.5, 0.5])
