"""Labels of a box, from lines whose borders are known."""

import dataclasses

import numpy as np
from small_neurites import SIZE_NM, THIN, line

from nisbjax.geometry import Box
from nisbjax.synth import rendering


def test_labels_are_the_nearest_line_less_the_gap():
    # Two parallel lines along z at x = 20 and x = 32, of equal radius: the membrane's
    # middle is x = 26, i.e. 6 voxels = 54 nm from each; labels end 13 nm before it, so
    # x = 24 (18 nm) is the last of the first and x = 28 the first of the second.
    positions = [(x, 30, z) for x in (20, 32) for z in (-20, 100)]
    lines = line(positions, [-1, 0, -1, 2], [1, 1, 2, 2])
    kind = dataclasses.replace(THIN, halo_voxels=0, defects=(0, 0), gap=13.0)
    box = Box((0, 30, 20), (60, 31, 21))
    _, labels = rendering.render_box(lines, kind, box, (60, 60, 60), SIZE_NM, 0)
    # A neurite reaches 2 * 60 = 120 nm where nothing stops it, less the gap: 107 nm,
    # which is 11 voxels.
    wanted = np.zeros(60, int)
    wanted[20 - 11 : 25] = 1
    wanted[28 : 32 + 12] = 2
    np.testing.assert_array_equal(labels[:, 0, 0], wanted)
