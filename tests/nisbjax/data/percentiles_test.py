"""Percentiles by bits equal those of the whole array in memory."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nisbjax.data import percentiles as module
from nisbjax.data.percentiles import extremes, percentiles
from nisbjax.store.volume import from_array

TYPES = ("u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8")


@st.composite
def volumes(draw):
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    elements = None
    if dtype.kind == "f":
        elements = {"allow_nan": False, "allow_infinity": False}
    return draw(arrays(dtype, (3, 2, 2, 1), elements=elements))


@settings(max_examples=60)
@given(volumes(), st.floats(0, 100))
def test_equal_to_numpy(array, place):
    wanted = (0, place, 100)
    found = percentiles(from_array(array, "xyzc"), wanted, array.size)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.percentile(array.astype(np.float64), wanted)
    assert found[0] == float(array.min()) and found[2] == float(array.max())
    if np.isfinite(expected).all():
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * largest)


def test_box_by_box_and_without_what_is_not_finite(monkeypatch):
    draw = np.random.default_rng(0)
    array = draw.normal(size=(30, 20, 10, 2)).astype(np.float32)
    array[3, 4, 5], array[7, 8, 9, 0] = np.nan, np.inf
    array[0, 0, 0, 0] = 1e30  # an outlier costs no precision
    finite = array[np.isfinite(array)]
    monkeypatch.setattr(module, "_BOX_BYTES", 1000)
    volume = from_array(array, "xyzc")
    assert extremes(volume) == (finite.min(), np.float32(1e30), array.size - 3)
    found = percentiles(volume, (1, 50, 99.9), finite.size)
    expected = np.percentile(finite.astype(np.float64), (1, 50, 99.9))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nothing_finite():
    found = extremes(from_array(np.full((2, 2, 2, 1), np.nan, np.float32), "xyzc"))
    assert found.finite == 0 and np.isnan(found.low)
