"""Components of dense labels at some voxels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from nisbjax.decode import label_components
from nisbjax.errors import InputError
from nisbjax.store.volume import from_array


def at_all(labels, **options):
    """Components at every voxel, in the shape of the labels."""
    positions = np.stack(np.indices(labels.shape), -1).reshape(-1, 3)
    volume = from_array(labels, "xyz")
    found = label_components.at_nodes(volume, positions, memory_gb=1.0, **options)
    return found.reshape(labels.shape)


def test_a_label_that_leaves_and_comes_back_is_two():
    #     x ->
    labels = np.array([1, 1, 2, 2, 1, 1, 0, 3], np.uint32).reshape(8, 1, 1)
    a, b, c, *_ = found = at_all(labels).ravel().tolist()
    del b, c
    assert found[0] == found[1] != found[4] == found[5]
    assert found[2] == found[3] not in (0, found[0], found[4])
    assert a != 0 and found[6] == 0
    assert found[7] == 0  # a voxel alone is background, as in a decode


@settings(max_examples=30, deadline=None)
@given(npst.arrays(np.uint8, (4, 3, 5), elements=st.integers(0, 2)))
def test_equals_scipys_components_of_each_label(labels):
    found = at_all(labels)
    for value in (1, 2):
        expected, n = ndimage.label(labels == value)
        for i in range(1, n + 1):
            inside = expected == i
            names = np.unique(found[inside])
            assert len(names) == 1
            alone = inside.sum() == 1
            assert (names[0] == 0) == alone
            if not alone:
                assert not (found[~inside] == names[0]).any()
    assert not found[labels == 0].any()


@pytest.mark.parametrize(
    ("dtype", "value", "options"),
    [(np.int32, -1, {}), (np.uint64, 2**64 - 3, {}), (np.uint8, 9, {"unlabeled": "9"})],
)
def test_unlabeled_voxels_are_background(dtype, value, options):
    labels = np.full((3, 1, 1), value, dtype)
    assert not at_all(labels, **options).any()


def test_labels_with_channels_are_refused():
    volume = from_array(np.ones((1, 2, 2, 2), np.uint8), "cxyz")
    with pytest.raises(InputError, match="has 4 axes; wanted labels x y z"):
        label_components.at_nodes(volume, np.zeros((1, 3), int), memory_gb=1.0)
