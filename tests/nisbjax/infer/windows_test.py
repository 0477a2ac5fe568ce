"""Window positions against the formulas, written the slow way."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer.windows import Grid, read_ahead, reflect_indices
from nisbjax.store.volume import from_array


@pytest.mark.parametrize("size, count", [(3000, 46), (2250, 35), (1350, 21), (128, 1)])
def test_window_counts_are_those_of_banis(size, count):
    # BANIS: {128 k} and {size - 128} and {64 + 128 k <= size - 128}.
    reference = {128 * k for k in range(size) if 128 * k <= size - 128}
    reference |= {size - 128}
    reference |= {64 + 128 * k for k in range(size) if 64 + 128 * k <= size - 128}
    grid = Grid((size, 128, 128), (128, 128, 128))
    assert grid.starts[0] == tuple(sorted(reference))
    assert len(grid.starts[0]) == count == grid.count


def test_an_axis_of_one_window_has_no_edge_windows():
    # PyTC: an image of 4 x 9 x 10, windows of 4, stride 2. x is covered by one window.
    # y: from -2 in steps of 2 up to 9 - 4 + 2 = 7, which is added; z: -2 to 8.
    grid = Grid((4, 9, 10), (4, 4, 4), 0.5, edge_windows=True)
    assert grid.starts == ((0,), (-2, 0, 2, 4, 6, 7), (-2, 0, 2, 4, 6, 8))
    # An axis shorter than the window is padded to it: one window there too.
    assert Grid((3, 9, 10), (4, 4, 4), 0.5, edge_windows=True).starts[0] == (0,)


def test_a_liconn_cube_has_74060_windows_and_85248_with_edge_windows():
    window = (128, 128, 128)
    assert Grid((3000, 3000, 2250), window).count == 46 * 46 * 35 == 74_060
    edged = Grid((3000, 3000, 2250), window, edge_windows=True)
    # From -64 to size - 64 in steps of 64, snapped: 48 x 48 x 37.
    assert edged.starts[2][0] == -64 and edged.starts[2][-1] == 2250 - 64
    assert edged.count == 48 * 48 * 37 == 85_248


def test_an_axis_shorter_than_the_window_is_centred_in_it():
    # 80 voxels in a window of 128: 48 more, 24 before; of 5 in 8: 1 before, 2 behind.
    assert Grid((80, 128, 5), (128, 128, 8)).starts == ((-24,), (0,), (-1,))


def test_windows_that_touch_a_box_come_in_c_order():
    grid = Grid((8, 6, 4), (4, 4, 4))  # x: 0 2 4, y: 0 2, z: 0
    assert grid.touching(Box((4, 0, 0), (6, 1, 4))) == [(2, 0, 0), (4, 0, 0)]
    assert grid.touching(Box((0, 3, 0), (1, 4, 4))) == [(0, 0, 0), (0, 2, 0)]


@given(st.integers(1, 7), st.integers(0, 20), st.integers(0, 20))
def test_reflection_is_that_of_numpy_pad(size, before, behind):
    want = np.pad(np.arange(size), (before, behind), mode="reflect")
    np.testing.assert_array_equal(reflect_indices(-before, size + behind, size), want)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: Grid((0, 4, 4), (4, 4, 4)), r"shape \(0, 4, 4\) is empty"),
        (lambda: Grid((4, 4, 4), (4, 4, 4), 1.0), "overlap 1.0 were asked"),
    ],
)
def test_errors_say_what_came(make, text):
    with pytest.raises(InputError, match=text):
        make()


@pytest.mark.parametrize("shape", [(9, 8, 7), (3, 8, 7)])
def test_windows_are_read_ahead_in_order(shape):
    """One list for each x position; what sticks out is reflected as by numpy.pad."""
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(*shape, 1)
    grid = Grid(shape, (4, 4, 4))
    with ThreadPoolExecutor(1) as reader:
        box = Box((0, 0, 0), (min(5, shape[0]), 3, 7))
        groups = list(read_ahead(reader, from_array(values, "xyzc"), grid, box))
    found = [window for group in groups for window in group]
    assert [start for start, _ in found] == grid.touching(box)
    assert [len({start[0] for start, _ in group}) for group in groups] == [1] * len(
        groups
    )
    # 3 planes in a window of 4: one more, behind: plane 1 again.
    pad = (0, max(0, 4 - shape[0]))
    padded = np.pad(values, (pad, (0, 0), (0, 0), (0, 0)), mode="reflect")
    for (x, y, z), window in found:
        np.testing.assert_array_equal(window, padded[x : x + 4, y : y + 4, z : z + 4])
