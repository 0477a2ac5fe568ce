"""Levels of edges, and the strongest of them, on the row that the docstring draws."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from nisbjax.decode.connected_components import edge_range
from nisbjax.decode.thresholds import levels as kernels
from nisbjax.decode.thresholds.levels import join_strongest

TOP = 5


def levels_of_edges(*arguments):
    kernels.read_levels(*arguments)


def test_the_worked_row_of_the_docstring():
    affinities = np.zeros((3, 1, 1, 4), np.float32)
    affinities[2, 0, 0] = [0.75, 0.55, 0.95, 0.6]  # the last one leaves the volume
    bits, _, high = edge_range(affinities.dtype, 0.5)
    lows = [edge_range(affinities.dtype, t).low for t in (0.5, 0.7, 0.9)]
    levels = np.empty((3, 1, 1, 4), np.uint8)
    no_mask = np.empty((0, 0, 0), np.uint8)
    kernels.read_levels(
        affinities.view(bits), no_mask, np.array(lows), high, False, False, True, levels
    )
    assert levels[2].ravel().tolist() == [0, 2, 1, 3]
    asked = np.array([[[1, 0, 0, 1]]], np.uint8)
    highest = np.empty((1, 1, 4), np.uint8)
    join_strongest(levels, asked, np.uint8(3), highest)
    assert levels[2].ravel().tolist() == [0, 3, 1, 3]
    assert highest.ravel().tolist() == [2, 2, 3, 3]


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    destination=st.booleans(),
    mask=st.sampled_from(["", "both", "source"]),
)
def test_levels_of_the_edges_to_the_voxels_before(seed, shape, destination, mask):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, (3, *shape)).astype(np.uint16)
    kept = (rng.random(shape) < 0.7).astype(np.uint8)
    lows, high = np.array([2, 3, 5], np.uint16), np.uint16(7)
    levels = np.full((3, *shape), 99, np.uint8)
    levels_of_edges(
        values, kept, lows, high, destination, bool(mask), mask == "both", levels
    )
    # 3 lies above 2, 4 and 5 above 3 too, 6 and 7 above 5; 8 is no affinity.
    table = [0, 0, 0, 1, 2, 2, 3, 3, 0]
    for (axis, *voxel), level in np.ndenumerate(levels):
        before = [v - (a == axis) for a, v in enumerate(voxel)]
        source, other = (voxel, before) if destination else (before, voxel)
        expected = 0
        if before[axis] >= 0:
            expected = table[values[(axis, *source)]]
            if mask and not kept[tuple(source)]:
                expected = 0
            if mask == "both" and not kept[tuple(other)]:
                expected = 0
        assert level == expected


def test_the_strongest_edge_of_a_voxel_is_raised_unless_it_is_a_terminal():
    # 0 -2- 1 -1- 2 -3- 3 with terminals 0 and 3: 1 goes to 0, 2 to 3.
    levels = np.zeros((3, 1, 1, 4), np.uint8)
    levels[2, 0, 0] = [0, 2, 1, 3]
    highest = np.empty((1, 1, 4), np.uint8)
    terminals = np.array([[[1, 0, 0, 1]]], np.uint8)
    join_strongest(levels, terminals, np.uint8(TOP), highest)
    assert levels[2, 0, 0].tolist() == [0, TOP, 1, TOP]
    assert highest.ravel().tolist() == [2, 2, 3, 3]
    levels[2, 0, 0] = [0, 2, 1, 3]
    join_strongest(levels, terminals | 1, np.uint8(TOP), highest)
    assert levels[2, 0, 0].tolist() == [0, 2, 1, 3]
