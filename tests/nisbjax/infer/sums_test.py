"""Sums on a device against numpy's in the same order, bit for bit."""

import jax
import numpy as np
import pytest

from nisbjax.geometry import Box
from nisbjax.infer import sums
from nisbjax.infer.blend import window_weights
from nisbjax.infer.sums import Sums
from nisbjax.infer.tiles import slabs_of
from nisbjax.infer.windows import Grid

SHAPE = (13, 9, 10)


def drawn(grid, run):
    """Weighted answers [c x y z] of all windows that touch the run, in order."""
    draw = np.random.default_rng(0)
    weights = window_weights(grid.window, "bump")
    return {
        start: draw.random((2, *grid.window), np.float32) * weights
        for start in grid.touching(run)
    }


def in_order(grid, run, weighted):
    """Averages of a run: every voxel adds its windows, one after the other."""
    values, total = np.zeros((2, *SHAPE), np.float32), np.zeros(SHAPE, np.float32)
    for start, window in weighted.items():
        at = grid.box(start).slices
        values[(slice(None), *at)] += window
        total[at] += window_weights(grid.window, "bump")
    return values[(slice(None), *run.slices)] / total[run.slices]


def summed(grid, run, weighted, slab, dtype):
    """The same by slabs, each taken as soon as no later window reaches it."""
    weights = jax.device_put(window_weights(grid.window, "bump"))
    found = Sums(run, slab, grid, weights, channels=2)
    boxes, taken = slabs_of(run, slab), []
    for start, window in weighted.items():
        while boxes and boxes[0].stop[0] <= start[0]:
            taken.append(np.asarray(found.take(boxes.pop(0), dtype)))
        # The second window of a batch.
        batch = jax.device_put(np.stack([np.full_like(window, np.nan), window]))
        found.add(start, batch, 1)
    taken += [np.asarray(found.take(box, dtype)) for box in boxes]
    return np.concatenate(taken, 1)


@pytest.mark.parametrize(
    "window, overlap, slab, run",
    [
        ((4, 4, 4), 0.5, 2, Box.whole(SHAPE)),
        ((5, 3, 4), 0.7, 3, Box((3, 2, 0), (12, 7, 9))),  # windows stick out of it
        ((4, 4, 4), 0.0, 8, Box((1, 0, 3), (13, 9, 6))),  # slabs longer than windows
    ],
)
def test_sums_equal_numpys_in_order(window, overlap, slab, run):
    grid = Grid(SHAPE, window, overlap)
    weighted = drawn(grid, run)
    want = in_order(grid, run, weighted)
    for dtype, rounded in (
        (np.float32, want),
        (np.float16, want.astype(np.float16)),
        (np.uint8, np.rint(want * np.float32(255)).astype(np.uint8)),
    ):
        got = summed(grid, run, weighted, slab, np.dtype(dtype))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, rounded)


def test_uint8_stands_for_value_times_255_rounded():
    grid = Grid((1, 1, 3), (1, 1, 3))
    weights = np.array([[[1, 2, 1]]], np.float32)
    found = Sums(Box.whole(grid.shape), 1, grid, jax.device_put(weights), channels=1)
    batch = np.array([0, 0.5, 1], np.float32) * weights
    found.add((0, 0, 0), jax.device_put(batch[None, None]), 0)
    taken = found.take(Box.whole(grid.shape), np.dtype(np.uint8))
    assert taken.tolist() == [[[[0, 128, 255]]]]  # 127.5 rounds to the even 128


def test_few_programs_serve_all_positions():
    """Sums of 16 planes, windows of 7 at each of 30 places along x."""
    grid = Grid((36, 3, 3), (7, 3, 3), 0.9)
    assert len(grid.starts[0]) == 30
    run = Box.whole(grid.shape)
    before = sums._add._cache_size()
    weights = jax.device_put(window_weights(grid.window))
    found = Sums(run, 16, grid, weights, channels=1)
    for start in grid.touching(run):
        found.add(start, weights[None, None], 0)
    # 4 + 2 + 1 planes, and parts of that where a slab ends.
    assert sums._add._cache_size() - before == 3
    mean = found.take(slabs_of(run, 16)[0], np.dtype(np.float32))
    assert set(np.asarray(mean).ravel()) == {1.0}  # weights over their own sums


def test_a_voxel_in_no_window_is_an_error():
    grid = Grid((9, 3, 3), (3, 3, 3), 0.0)
    weights = jax.device_put(window_weights(grid.window))
    Sums(Box((2, 0, 0), (9, 3, 3)), 3, grid, weights, channels=1)
    grid.__dict__["starts"] = ((0, 6), (0,), (0,))
    with pytest.raises(AssertionError, match="no window covers all voxels of 2:9,"):
        Sums(Box((2, 0, 0), (9, 3, 3)), 3, grid, weights, channels=1)
