"""Pictures of the planes at both ends against slices of the whole volume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.qc import end_planes


def expected(values, step):
    """Every `step`-th voxel of the kept planes, channels summed, in 1 / 255."""
    tones = values.astype(np.float64) * (1 if values.dtype == np.uint8 else 255)
    depth = values.shape[3]
    z = [k for k in range(depth) if k < 3 or k >= depth - 3]
    return np.rint(tones)[:, ::step, ::step, z].sum(0).transpose(2, 0, 1)


def test_which_planes():
    assert [end_planes.row_of(z, 5) for z in range(5)] == [0, 1, 2, 3, 4]
    rows = [end_planes.row_of(z, 2250) for z in (0, 63, 64, 2185, 2186, 2249)]
    assert rows == [0, 63, None, None, 64, 127]
    assert end_planes.empty((3000, 100, 2250)).shape == (128, 250, 9)
    assert end_planes.step_of((256, 100, 2250)) == 1
    assert end_planes.step_of((100, 3000, 2250)) == 12


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12)),
    st.sampled_from(["float16", "float32", "uint8"]),
    st.tuples(*[st.integers(1, 5)] * 3),
)
def test_parts_make_the_whole(seed, shape, dtype, chunk):
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 256, (2, *shape))
    values = (values / (1 if dtype == "uint8" else 255)).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(end_planes, "DEPTH", 3)
        patch.setattr(end_planes, "PIXELS", 4)
        step = -(-max(shape[:2]) // 4)
        whole = end_planes.empty(shape)
        for start in np.ndindex(*(-(-s // c) for s, c in zip(shape, chunk))):
            x, y, z = (i * c for i, c in zip(start, chunk))
            part = values[:, x : x + chunk[0], y : y + chunk[1], z : z + chunk[2]]
            shown, at = end_planes.take(part, (x, y, z), shape)
            index = tuple(slice(a, a + n) for a, n in zip(at, shown.shape))
            whole[index] += shown
        np.testing.assert_array_equal(whole, expected(values, step))


def test_what_is_no_tone_is_black_or_white():
    values = np.array([np.nan, -1, 2, np.inf], np.float16).reshape(1, 1, 1, 4)
    for kind in (np.float16, np.float32):
        shown, _ = end_planes.take(values.astype(kind), (0, 0, 0), (1, 1, 4))
        assert shown.ravel().tolist() == [0, 0, 255, 255]
