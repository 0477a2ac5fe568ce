"""Territories: by hand, and where contested growth is sure they agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nisbjax.decode.agglomeration.territories import territories
from nisbjax.decode.contested_growth import contested_growth
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError

SHAPE = (3, 4, 5)


def row(affinities, labels, low=0.1, **options):
    values = np.zeros((3, 1, 1, len(labels)), np.float16)
    values[2, 0, 0, : len(affinities)] = affinities
    labels = np.array(labels, np.uint32).reshape(1, 1, -1)
    return territories(values, labels, low, **options).ravel().tolist()


def test_by_hand():
    # The row of the module: a is 1's by .9, c 2's by .8, and a-b comes before the equal b-c.
    assert row([0.9, 0.4, 0.4, 0.8], [1, 0, 0, 0, 2]) == [1, 1, 1, 2, 2]
    assert row([0.9, 0.4, 0.5, 0.8], [1, 0, 0, 0, 2]) == [1, 1, 2, 2, 2]
    # What no label reaches above `low` stays.
    assert row([0.9, 0.1, 0.4, 0.1], [1, 0, 0, 0, 2]) == [1, 1, 0, 0, 2]


def test_a_mask_takes_edges():
    mask = np.array([1, 1, 0, 1, 1], bool).reshape(1, 1, 5)
    found = row([0.9, 0.4, 0.4, 0.8], [1, 0, 0, 0, 2], edges=MaskedEdges(mask=mask))
    assert found == [1, 1, 0, 2, 2]


@given(
    hnp.arrays(np.int8, (3, *SHAPE), elements=st.integers(0, 9)),
    hnp.arrays(np.uint32, SHAPE, elements=st.sampled_from([0, 0, 0, 1, 2, 3])),
    st.integers(0, 1),
)
def test_they_agree_with_growth_that_is_not_contested(values, labels, offset):
    affinities = (values / 10).astype(np.float16)
    edges = MaskedEdges(offset)
    sure = contested_growth(affinities, labels, 0.25, 0.01, edges=edges)
    found = territories(affinities, labels, 0.25, edges=edges)
    assert (found[sure > 0] == sure[sure > 0]).all()
    assert (found[labels > 0] == labels[labels > 0]).all()
    # Along edges above `low`, no free voxel remains beside a labelled one.
    for axis in range(3):
        ends = [np.moveaxis(a, axis, 0) for a in (found, affinities[axis])]
        edge = ends[1][1:] if offset else ends[1][:-1]
        low, high = ends[0][:-1], ends[0][1:]
        assert not ((edge > np.float16(0.25)) & ((low == 0) != (high == 0))).any()


def test_a_threshold_outside_of_its_range_is_refused():
    with pytest.raises(InputError, match="1.5"):
        row([0.9], [1, 0], low=1.5)
