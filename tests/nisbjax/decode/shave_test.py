"""What touches another segment goes, by hand and in plain Python."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.decode.shave import shaved
from nisbjax.errors import InputError


@pytest.mark.parametrize(
    "voxels, wanted",
    [
        (0, [1, 1, 1, 2, 2, 2, 0, 3, 3]),
        (1, [1, 1, 0, 0, 2, 2, 0, 3, 3]),
        (2, [1, 0, 0, 0, 0, 2, 0, 3, 3]),
        (3, [0, 0, 0, 0, 0, 0, 0, 3, 3]),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_row(voxels, wanted, axis):
    row = np.array([1, 1, 1, 2, 2, 2, 0, 3, 3], np.uint32)
    labels = np.moveaxis(row.reshape(-1, 1, 1), 0, axis)
    found = shaved(labels, voxels)
    assert found.dtype == np.uint32
    assert found.ravel().tolist() == wanted
    assert row.tolist() == [1, 1, 1, 2, 2, 2, 0, 3, 3]


def test_corners_do_not_touch():
    labels = np.array([[1, 0], [0, 2]], np.uint32).reshape(1, 2, 2)
    np.testing.assert_array_equal(shaved(labels, 3), labels)


def by_steps(labels, voxels):
    """Breadth first from the voxels that touch, through their own segments."""
    kept = {v: int(labels[v]) for v in np.ndindex(labels.shape) if labels[v]}

    def beside(v):
        for axis, step in itertools.product(range(3), (-1, 1)):
            u = tuple(c + step * (axis == a) for a, c in enumerate(v))
            if u in kept:
                yield u

    reached = {v for v in kept if any(kept[u] != kept[v] for u in beside(v))}
    for _ in range(voxels - 1):
        reached |= {u for v in reached for u in beside(v) if kept[u] == kept[v]}
    found = labels.copy()
    for v in reached:
        found[v] = 0
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_any_volume(seed, voxels):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4, (2, 3, 2)).astype(np.uint32)
    labels = coarse.repeat(3, 0).repeat(2, 1).repeat(3, 2)
    np.testing.assert_array_equal(shaved(labels, voxels), by_steps(labels, voxels))


@pytest.mark.parametrize("voxels", [-1, 17])
def test_what_means_nothing_is_refused(voxels):
    with pytest.raises(InputError, match=f"decode.shave is {voxels}; wanted 0 to 16"):
        shaved(np.ones((1, 1, 1), np.uint32), voxels)
