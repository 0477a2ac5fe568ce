"""Boxes of a streamed decode: neighbours, and their size by memory and chunks."""

import numpy as np
import pytest
import tensorstore as ts
from absl import logging

from nisbjax.decode.streamed.grid import BoxGrid, choose_box, even_grid
from nisbjax.geometry import Box
from nisbjax.store.volume import Volume, from_array

GRID = BoxGrid((5, 2, 6), (2, 2, 3))  # 3 x 1 x 2 boxes


def chunked(shape, chunks, axes="cxyz"):
    layout = ts.ChunkLayout(chunk_shape=chunks)
    store = ts.virtual_chunked(
        lambda *_: None, dtype=ts.float16, shape=shape, chunk_layout=layout
    )
    return Volume(store, axes)


def test_boxes_stand_in_c_order():
    assert GRID.counts == (3, 1, 2)
    assert list(map(str, GRID.boxes))[:3] == [
        "0:2,0:2,0:3",
        "0:2,0:2,3:6",
        "2:4,0:2,0:3",
    ]
    assert str(GRID.boxes[-1]) == "4:5,0:2,3:6"
    assert GRID.position(3) == (1, 0, 1)


def test_neighbours_end_at_the_volume():
    assert GRID.neighbour(2, 0, 1) == 4
    assert GRID.neighbour(2, 0, -1) == 0
    assert GRID.neighbour(2, 2, 1) == 3
    assert GRID.neighbour(2, 2, -1) is None
    assert GRID.neighbour(2, 1, 1) is None
    # Box 2 touches others at both faces on x and behind it on z.
    assert GRID.seams(2) == [(0, 0), (0, -1), (2, -1)]


@pytest.mark.parametrize(
    "chunks, whole", [((2, 2, 3), True), ((1, 1, 3), True), ((2, 2, 2), False)]
)
def test_whether_a_chunk_lies_in_two_boxes(chunks, whole):
    assert GRID.holds_whole(chunked((5, 2, 6), chunks, "xyz")) is whole


def test_boxes_are_whole_chunks_of_both_arrays():
    affinities = chunked((3, 64, 64, 64), (1, 8, 8, 8))
    output = chunked((64, 64, 64), (4, 16, 8), "xyz")
    # Two boxes of 20 bytes a voxel in 1 MB: 25,000 voxels each; 16 is a common multiple.
    box = choose_box(affinities, 20.0, 1e-3, output=output)
    assert all(b % u == 0 for b, u in zip(box, (8, 16, 8), strict=True))
    assert np.prod(box) * 20.0 <= 0.5e6 < 2 * np.prod(box) * 20.0


def test_a_small_volume_is_divided_only_when_asked():
    affinities = chunked((3, 256, 128, 128), (1, 32, 32, 32))
    assert choose_box(affinities, 20.0, 4.0) == (256, 128, 128)
    divided = choose_box(affinities, 20.0, 4.0, divide=True)
    assert np.prod(divided) < 0.6 * 256 * 128 * 128
    small = from_array(np.zeros((3, 8, 8, 8), np.float16), "cxyz")
    assert choose_box(small, 20.0, 4.0, divide=True) == (8, 8, 8)


def test_a_chunk_beyond_memory_is_halved_and_named(caplog):
    logging.get_absl_logger().propagate = True
    with caplog.at_level("WARNING"):
        # 32^3 voxels of 20 bytes are 0.66 MB; 0.3 MB for two boxes hold 7,500 each.
        box = choose_box(chunked((3, 64, 64, 64), (1, 32, 32, 32)), 20.0, 3e-4)
    assert np.prod(box) * 20.0 <= 0.15e6
    assert sorted(box) == [16, 16, 16]
    assert "each is read about 8 times" in caplog.text


def test_a_box_and_its_halo_end_where_the_volume_does():
    grid = BoxGrid((10, 4, 4), (5, 4, 4))
    assert grid.around(0, 2) == Box((0, 0, 0), (7, 4, 4))
    assert grid.around(1, 2) == Box((3, 0, 0), (10, 4, 4))


def test_the_boxes_that_a_region_meets():
    # Along x 0-5, 5-10; along z 0-2, 2-4. Of y all is one box.
    grid = BoxGrid((10, 4, 4), (5, 4, 2))
    assert grid.meeting(Box((4, 0, 0), (6, 4, 2))) == [0, 2]
    assert grid.meeting(Box((5, 1, 1), (7, 2, 3))) == [2, 3]
    assert grid.meeting(Box((0, 0, 0), (10, 4, 4))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "shape, halo, most, box_shape",
    [
        ((80, 250, 170), 16, 9_500_000, (80, 250, 170)),  # 3.4 million voxels in all
        # 132^3 is 2.3 million, too many; 66 is 68 in fours, then 34 is 36.
        ((100, 132, 40), 2, 300_000, (100, 68, 40)),
        ((100, 132, 40), 2, 200_000, (52, 68, 40)),
        # Divided along z until 20 x 20 x (24 + 2 x 4) is at most 13,000.
        ((20, 20, 1000), 4, 13_000, (20, 20, 24)),
        ((8, 8, 8), 4, 1, (4, 4, 4)),  # no smaller
    ],
)
def test_even_boxes_follow_from_the_volume(shape, halo, most, box_shape):
    assert even_grid(shape, halo, most) == BoxGrid(shape, box_shape)
