"""A shaved chain, box by box, against one pass over its volume."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nisbjax.decode import numbering
from nisbjax.decode.chain import ChainParameters, chain_affinities
from nisbjax.decode.shave import shaved
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.offsets import OFFSETS_6
from nisbjax.store.volume import from_array


def decode(affinities, box_shape=None, threshold=None, min_size=0, **parameters):
    output = np.zeros(affinities.shape[1:], np.uint32)
    counts = chain_volume(
        from_array(affinities, "cxyz"),
        from_array(output, "xyz"),
        parameters=ChainParameters(**parameters),
        memory_gb=1.0,
        threshold=threshold,
        min_size=min_size,
        schedule=Schedule(box_shape=box_shape),
    )
    assert counts.segments == output.max(initial=0)
    assert counts.labelled == (output > 0).sum()
    return output


def renumbered(labels):
    labels = np.ascontiguousarray(labels)
    table = np.zeros(int(labels.max(initial=0)) + 1, labels.dtype)
    numbering.renumber(labels.reshape(-1), table)
    return labels


@hypothesis.settings(max_examples=5)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    voxels=st.integers(1, 5),
    threshold=st.sampled_from([None, 0.8]),
)
def test_boxes_shave_as_one_pass_over_what_they_decoded(seed, voxels, threshold):
    """Whatever boxes make of fragments and growth: the labels before are theirs too."""
    affinities = np.random.default_rng(seed).random((6, 14, 9, 11)).astype(np.float16)
    affinities[:, 3:11] += np.float16(0.25) * (1 - affinities[:, 3:11])
    chosen = {"attract": 0.8, "repel": -0.8, "anchor": 2, "low": 0.4, "margin": 0.01}
    before = decode(affinities, (5, 9, 4), threshold, **chosen)
    expected = renumbered(shaved(before, voxels))
    found = decode(affinities, (5, 9, 4), threshold, shave=voxels, **chosen)
    np.testing.assert_array_equal(found, expected)


def test_a_chain_in_memory_is_shaved_too():
    affinities = np.random.default_rng(7).random((6, 9, 8, 10)).astype(np.float16)
    chosen = {"attract": 0.8, "repel": -0.8, "anchor": 2, "low": 0.4}
    before = chain_affinities(affinities, OFFSETS_6, ChainParameters(**chosen))
    expected = renumbered(shaved(before, 1))
    assert 1 < expected.max() and (expected > 0).sum() < (before > 0).sum()
    found = chain_affinities(affinities, OFFSETS_6, ChainParameters(shave=1, **chosen))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(decode(affinities, shave=1, **chosen), expected)


@pytest.mark.parametrize("min_size, segments", [(0, 2), (9, 1)])
def test_a_segment_that_loses_a_whole_box_stays_one(min_size, segments):
    """Two rows of 12 voxels, which touch from 4 to 7: boxes of 4 along x."""
    affinities = np.zeros((3, 12, 3, 1), np.float16)
    affinities[0, :11, 0] = affinities[0, :11, 2] = 0.9
    affinities[1, 4:8, 0] = 0.9  # the voxel between is of the first row there
    found = decode(affinities, (4, 3, 1), 0.8, min_size, anchor=2, low=0.9, shave=1)
    # Row 0 has 8 voxels besides those 4, none of which touches: 12. Row 2 has 8 left.
    wanted = np.zeros((12, 3), np.uint32)
    wanted[:, 0] = 1
    if segments == 2:
        wanted[:4, 2] = wanted[8:, 2] = 2
    np.testing.assert_array_equal(found[..., 0], wanted)
