"""The products of a forward pass, against those that were counted in its program."""

import pytest

from nisbjax.models import cost


@pytest.mark.parametrize(("size", "gflop"), [("S", 238), ("L", 967)])
def test_products_of_a_pass(size, gflop):
    """docs/performance.md has 238 and 967 GFLOP for 128^3 voxels, stem and head with them."""
    found = cost.forward_flop({"size": size, "channels": 32}, (128, 128, 128))
    assert found == pytest.approx(gflop * 1e9, rel=0.03)


def test_voxels_and_channels():
    """A quarter of the voxels and twice the channels: the products of 4 / 4."""
    whole = cost.forward_flop({"size": "S", "channels": 8}, (32, 32, 32))
    assert cost.forward_flop({"size": "S", "channels": 16}, (16, 16, 32)) == whole
