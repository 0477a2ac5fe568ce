"""Tiles, slabs and what is left of them, counted by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.infer.tiles import (
    Layout,
    finished_chunks,
    slabs_of,
    tile_shape,
    unfinished_runs,
)
from nisbjax.infer.windows import Grid
from nisbjax.store.volume import from_array


def test_slabs_lie_along_x_and_the_last_is_shorter():
    run = Box((4, 2, 0), (13, 5, 6))
    assert slabs_of(run, 4) == [
        Box((4, 2, 0), (8, 5, 6)),
        Box((8, 2, 0), (12, 5, 6)),
        Box((12, 2, 0), (13, 5, 6)),
    ]


def test_what_is_done_is_left_out():
    # 10 x 4 x 4 voxels in chunks of 4 x 4 x 2: 3 x 1 x 2 chunks. Done are the chunks of
    # the first slab in z 0-1 alone, and the whole second slab.
    done = finished_chunks(
        [Box((0, 0, 0), (4, 4, 2)), Box((4, 0, 0), (8, 4, 4))], (10, 4, 4), (4, 4, 2)
    )
    assert done[:, 0].tolist() == [[True, False], [True, True], [False, False]]
    whole = Box((0, 0, 0), (10, 4, 4))
    assert unfinished_runs(whole, 4, done, (4, 4, 2)) == [
        Box((0, 0, 0), (4, 4, 4)),
        Box((8, 0, 0), (10, 4, 4)),
    ]
    # Of the tile z 0-1, only the last slab is left.
    near = Box((0, 0, 0), (10, 4, 2))
    assert unfinished_runs(near, 4, done, (4, 4, 2)) == [Box((8, 0, 0), (10, 4, 2))]


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 2**8 - 1))
def test_runs_are_the_slabs_that_are_not_done(size, planes, bits):
    whole = Box((0, 0, 0), (size, 1, 1))
    slabs = slabs_of(whole, planes)
    flags = [bool(bits >> i & 1) for i in range(len(slabs))]
    boxes = [slab for slab, flag in zip(slabs, flags, strict=True) if flag]
    done = finished_chunks(boxes, (size, 1, 1), (planes, 1, 1))
    left = unfinished_runs(whole, planes, done, (planes, 1, 1))
    want = {
        x
        for slab in slabs
        if slab not in boxes
        for x in range(*slab.slices[0].indices(size))
    }
    assert {x for run in left for x in range(run.start[0], run.stop[0])} == want
    # As few as there can be: two never touch.
    assert all(a.stop[0] < b.start[0] for a, b in itertools.pairwise(left))


def test_a_tile_holds_its_sums_slabs_and_images():
    # Windows of 2^3, 3 channels of 2 bytes, slabs of 2 planes, an image of bytes.
    # Of each voxel: 4 (3 + 1) (2 + 2) = 64 bytes of sums, 3 x 3 x 2 x 2 = 36 of slabs.
    # Images: 3 x 2 planes of (y + 4) (z + 4) voxels. A batch of 1: 4 x 8 (4 x 3 + 1) = 416.
    image = from_array(np.zeros((8, 8, 8, 1), np.uint8), "xyzc")
    output = Layout((3, 8, 8, 8), np.dtype(np.float16), (2, 2, 2))
    grid = Grid((8, 8, 8), (2, 2, 2))
    whole = 8 * 8 * 100 + 6 * 12 * 12 + 416
    least = 2 * 2 * 100 + 6 * 6 * 6 + 416

    def tile(memory):
        return tile_shape(image, output, grid, batch=1, memory_bytes=memory)

    assert tile(2 * whole) == (2, (8, 8))
    assert tile(least) == (2, (2, 2))
    with pytest.raises(
        InputError, match="does not hold one tile; wanted at least 0.00,"
    ):
        tile(least - 1)
