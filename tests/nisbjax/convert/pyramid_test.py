"""Scales of a pyramid, by arithmetic."""

from nisbjax.convert.pyramid import Level, levels


def test_cubes_are_halved_along_all_axes():
    assert levels((5, 8, 1), None, 2) == [
        Level(0, (5, 8, 1)),
        Level(1, (3, 4, 1), (2, 2, 1), (2, 2, 1)),
        Level(2, (2, 2, 1), (2, 2, 1), (4, 4, 1)),
    ]


def test_long_voxels_wait_for_the_others():
    # 9 9 30; 30 >= 2 x 9: 18 18 30; 30 < 2 x 18: 36 36 60; 60 < 2 x 36: 72 72 120.
    found = levels((64, 64, 64), [9, 9, 30], 3)
    factors = [(1, 1, 1), (2, 2, 1), (4, 4, 2), (8, 8, 4)]
    assert [level.factors for level in found] == factors
    shapes = [(64, 64, 64), (32, 32, 64), (16, 16, 32), (8, 8, 16)]
    assert [level.shape for level in found] == shapes


def test_it_ends_at_one_voxel():
    # 3 -> 2 -> 1.
    shapes = [(3, 1, 1), (2, 1, 1), (1, 1, 1)]
    assert [level.shape for level in levels((3, 1, 1), None, 9)] == shapes
