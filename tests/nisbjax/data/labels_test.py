"""Erosion and relabelling against hand-drawn volumes, plain loops and scipy."""

import itertools

import jax
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.data.labels import erode, erosion_triple, relabel_components
from nisbjax.errors import InputError

jitted = jax.jit(erode, static_argnames="erosion")


def eroded(labels, erosion):
    batch = np.asarray(labels, np.int32)[None]
    return np.asarray(jitted(batch, erosion)[0])


def keep_by_sets(labels, erosion):
    """The definition: a window must hold exactly one distinct positive id."""
    out = labels.copy()
    for v in itertools.product(*map(range, labels.shape)):
        if labels[v] <= 0:
            continue
        ranges = []
        for at, size, radius in zip(v, labels.shape, erosion, strict=True):
            around = range(at - radius, at + radius + 1)
            # d c b a | a b c d: -1 is 0, size is size - 1
            ranges.append(
                [n if 0 <= n < size else (-1 - n) % (2 * size) for n in around]
            )
            ranges[-1] = [n if n < size else 2 * size - 1 - n for n in ranges[-1]]
        ids = {labels[u] for u in itertools.product(*ranges)} - {0, -1}
        if len({i for i in ids if i > 0}) != 1:
            out[v] = 0
    return out


def keep_by_scipy(labels, erosion):
    """The reference's own filters (PyTC `segment.py`)."""
    window = [2 * r + 1 for r in erosion]
    largest = scipy.ndimage.maximum_filter(labels, window, mode="reflect")
    no_id = labels.max() + 1
    smallest = scipy.ndimage.minimum_filter(
        np.where(labels > 0, labels, no_id), window, mode="reflect"
    )
    return np.where((labels < 0) | (largest == smallest), labels, 0)


def test_two_objects_that_touch_along_y_end_four_voxels_apart():
    row = np.array([1] * 5 + [2] * 5).reshape(1, 10, 1)
    got = eroded(np.tile(row, (2, 1, 3)), (0, 2, 2))
    assert got[0, :, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 2, 2, 2]


def test_legacy_spares_contact_along_x():
    row = np.array([1] * 5 + [2] * 5).reshape(10, 1, 1)
    labels = np.tile(row, (1, 4, 4))
    np.testing.assert_array_equal(eroded(labels, (0, 2, 2)), labels)
    # ... and "xy" does not: 2 voxels go on each side.
    got = eroded(labels, erosion_triple((0, 2, 2), "xy"))
    assert got[:, 0, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 2, 2, 2]


def test_background_and_unlabeled_erode_nothing_and_stay():
    row = np.array([-1, 3, 3, 0, 0, 4, -1, 0]).reshape(1, 8, 1)
    # 3 and 4 are three voxels apart: each lies outside the other's window of radius 2.
    got = eroded(row, (0, 2, 0))
    assert got.ravel().tolist() == [-1, 3, 3, 0, 0, 4, -1, 0]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0, 2, 2), (1, 1, 1), (2, 0, 1), (0, 0, 0)]),
)
def test_equals_the_definition_and_scipy(seed, erosion):
    draw = np.random.default_rng(seed)
    # Blocks of two, so that some windows do hold a single id.
    labels = draw.integers(-1, 4, (3, 3, 4)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    got = eroded(labels, erosion)
    np.testing.assert_array_equal(got, keep_by_sets(labels, erosion))
    np.testing.assert_array_equal(got, keep_by_scipy(labels, erosion))


def test_erosion_axes():
    assert erosion_triple((0, 2, 2), "legacy") == (0, 2, 2)
    assert erosion_triple((0, 2, 2), "xy") == (2, 2, 0)
    assert erosion_triple((0, 2, 2), "xyz") == (2, 2, 2)
    with pytest.raises(InputError, match="erosion_axes is 'zyx'; wanted one of legacy"):
        erosion_triple((0, 2, 2), "zyx")
    with pytest.raises(
        InputError, match=r"erosion is \(0, -1, 0\); wanted three radii"
    ):
        erosion_triple((0, -1, 0), "legacy")


def flood(labels):
    """Breadth-first search from every voxel in C order."""
    out = np.where(labels > 0, 0, labels).astype(np.int32)
    ids = 0
    for start in itertools.product(*map(range, labels.shape)):
        if labels[start] <= 0 or out[start] > 0:
            continue
        ids += 1
        out[start] = ids
        queue = [start]
        while queue:
            v = queue.pop()
            for axis, step in itertools.product(range(3), (-1, 1)):
                u = list(v)
                u[axis] += step
                u = tuple(u)
                inside = all(0 <= a < s for a, s in zip(u, labels.shape, strict=True))
                if inside and labels[u] == labels[start] and out[u] == 0:
                    out[u] = ids
                    queue.append(u)
    return out


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.int32, np.uint16, np.uint64]))
def test_components_equal_a_flood(seed, dtype):
    low = -1 if dtype == np.int32 else 0
    labels = np.random.default_rng(seed).integers(low, 3, (5, 6, 7)).astype(dtype)
    got = relabel_components(labels)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, flood(labels))


def test_a_branch_that_leaves_the_crop_and_returns_becomes_two():
    labels = np.array([[[8, 8, 0, 8], [0, 0, 0, 8], [-1, 5, 5, 8]]])
    wanted = [[[1, 1, 0, 2], [0, 0, 0, 2], [-1, 3, 3, 2]]]
    assert relabel_components(labels).tolist() == wanted


@pytest.mark.parametrize(
    ("dtype", "code"), [("i8", -(2**40)), ("u8", 2**64 - 1), ("u4", 2**32 - 10)]
)
def test_relabelling_leaves_the_unlabeled_out(dtype, code):
    labels = np.array([3, code, code, 3, 0], dtype).reshape(5, 1, 1)
    assert relabel_components(labels).ravel().tolist() == [1, -1, -1, 2, 0]
