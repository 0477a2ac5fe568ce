"""Each voxel belongs to the line that is nearest in units of its radius."""

import numpy as np

from nisbjax.synth import domains

SIZE = np.ones(3)


def segment(x, radius, neurite):
    """A line along z at (x, 0), 10 nm long."""
    row = np.zeros(domains.COLUMNS)
    row[:3], row[3:6] = (x, 0, 0), (0, 0, 10)
    row[6:8], row[8:11], row[14] = radius, (1, 0, 0), neurite
    return row


def owners(*segments, reach):
    start, shape = np.array([0, 0, 5]), (13, 1, 1)
    found = domains.rasterize(np.stack(segments), start, shape, SIZE, reach)
    return [part[:, 0, 0].tolist() for part in found]


def test_neighbours_share_space_by_their_radii():
    # Radii 2 and 4 at x = 0 and 12: x / 2 = (12 - x) / 4 at x = 4, which neither wins
    # from the other: the first that was drawn keeps it.
    first, second = owners(segment(0, 2.0, 1), segment(12, 4.0, 2), reach=10.0)
    assert first == [0] * 5 + [1] * 8
    assert second == [1] * 5 + [0] * 8


def test_a_neurite_reaches_so_many_radii_and_is_no_rival_of_itself():
    # Two radii of 2 nm: below 4 nm from the line. The same line twice is one neurite.
    line = segment(0, 2.0, 1)
    first, second = owners(line, line, reach=2.0)
    assert first == [0] * 4 + [-1] * 9
    assert second == [-1] * 13
