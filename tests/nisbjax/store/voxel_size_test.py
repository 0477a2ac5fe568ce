"""Voxel sizes in the units that files name."""

import pytest

from nisbjax.errors import InputError
from nisbjax.store import voxel_size


@pytest.mark.parametrize(
    "unit, nm",
    [
        ("nanometer", 1),
        ("nm", 1),
        ("Micrometre", 1e3),
        ("micrometers", 1e3),
        ("µm", 1e3),
        ("μm", 1e3),
        ("angstrom", 0.1),
        ("mm", 1e6),
        ("m", 1e9),
        ("pixel", None),
        ("", None),
        (None, None),
        (3, None),
    ],
)
def test_units(unit, nm):
    assert voxel_size.unit_nm(unit) == nm


def test_sizes_follow_their_axes():
    units = [None, "um", "nm", "nm"]
    # c z y x: .004 um are 4 nm, and no float beside it.
    assert voxel_size.from_axes("czyx", [1, 0.004, 9, 8], units) == [8, 9, 4]
    assert voxel_size.from_axes("zyx", [4, 9, 8], ["nm", "nm", None]) is None
    assert voxel_size.from_axes("yx", [9, 8], ["nm", "nm"]) is None


@pytest.mark.parametrize(
    "value", ["1 1 1", [1, 1], [1, 1, 0], [1, -1, 1], [1, 1, "1"], [1, 1, True], None]
)
def test_what_is_no_size(value):
    with pytest.raises(InputError, match="em has the scale .*; wanted 3 positive num"):
        voxel_size.require_sizes("em", "scale", value, 3)
