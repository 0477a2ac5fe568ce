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


IMAGE = from_array(np.zeros((8, 8, 8, 1), np.uint8), "xyzc")
OUTPUT = Layout((3, 8, 8, 8), np.dtype(np.float16), (2, 2, 2))
GRID = Grid((8, 8, 8), (2, 2, 2))


def test_a_tile_holds_its_sums_slabs_and_images():
    # Windows of 2^3, 3 channels of 2 bytes, slabs of 2 planes, an image of bytes. A window
    # touches at most 2 slabs. Of each voxel that windows reach, 1 beyond the tile:
    # 4 (3 x 2 + 1) 2 = 56 bytes of sums and 4 x 2 of images; of each in the tile
    # 3 x 3 x 2 x 2 = 36 of slabs. A batch of 1: 4 x 8 (4 x 3 + 1) = 416.
    whole = 8 * 8 * (56 + 8 + 36) + 416
    least = 4 * 4 * (56 + 8) + 2 * 2 * 36 + 416

    def tile(memory):
        return tile_shape(IMAGE, OUTPUT, GRID, batch=1, memory_bytes=memory)

    assert tile(2 * whole) == tile(whole) == (2, (8, 8))
    assert tile(whole - 1) != (2, (8, 8))
    assert tile(least) == (2, (2, 2))
    with pytest.raises(
        InputError, match="does not hold one tile; wanted at least 0.00,"
    ):
        tile(least - 1)


def test_sums_in_a_devices_own_memory_bound_a_tile_beside_the_hosts():
    # As above, but sums and two rounded slabs, 2 x 12, are on the device, and of a batch
    # images alone are on the host: 4 x 8.
    host, device = 8 * 8 * (8 + 36) + 32, 8 * 8 * (56 + 24)

    def tile(host, device):
        return tile_shape(
            IMAGE, OUTPUT, GRID, batch=1, memory_bytes=host, device_bytes=device
        )

    assert tile(host, device) == (2, (8, 8))
    assert tile(host - 1, device) != (2, (8, 8)) != tile(host, device - 1)
    least = 4 * 4 * 56 + 2 * 2 * 24
    assert tile(host, least) == (2, (2, 2))
    for left in (least - 1, -5):
        with pytest.raises(
            InputError, match=r"has 0.00 GB beside the network, and sums"
        ):
            tile(host, left)
