"""The chain, box by box: what depends on boxes, and what does not."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nisbjax.decode import numbering
from nisbjax.decode.chain import ChainParameters, chain_affinities, grown
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.segment_counts import without_small
from nisbjax.decode.streamed.chain import chain_volume, check_chain
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError
from nisbjax.store.volume import Volume, from_array

PARAMETERS = ChainParameters(anchor=4, low=0.3, margin=0.02)
OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 0, 0), (0, -2, 1), (0, 0, 5))


def volume(affinities, offsets=OFFSETS):
    """[c x y z] in memory, with the offsets of its channels."""
    found = from_array(affinities, "cxyz")
    found.attributes = {"axes": list("cxyz"), "offsets": [list(o) for o in offsets]}
    return found


def neurites(seed, shape, noise, dtype=np.float16):
    """Affinities of two neurites side by side along y: .95 less some noise."""
    values = 0.95 - noise * np.random.default_rng(seed).random((6, *shape))
    half = shape[1] // 2
    values[1, :, half - 1] = 0.1
    values[4, :, half : half + 2] = 0.02
    return (values * (255 if dtype == np.uint8 else 1)).astype(dtype)


def decode(affinities: Volume, box_shape=None, parameters=PARAMETERS, **options):
    output = np.zeros(affinities.spatial_shape, np.uint32)
    counts = chain_volume(
        affinities,
        from_array(output, "xyz"),
        parameters=parameters,
        memory_gb=1.0,
        schedule=Schedule(box_shape=box_shape),
        **options,
    )
    assert counts.segments == output.max(initial=0)
    assert counts.labelled == (output > 0).sum()
    return output


boxes = st.tuples(st.integers(5, 9), st.integers(5, 9), st.integers(6, 11))
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 11))


@hypothesis.settings(max_examples=8)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=shapes,
    box_shape=boxes,
    dtype=st.sampled_from([np.float16, np.float32, np.uint8]),
    edge_offset=st.sampled_from([0, 1]),
    masked=st.sampled_from(["", "both", "source"]),
    min_size=st.sampled_from([0, 30]),
)
def test_boxes_that_see_the_whole_volume_give_its_labels(
    seed, shape, box_shape, dtype, edge_offset, masked, min_size
):
    """With the halo around it, any box of a volume this small is the volume."""
    affinities = neurites(seed, shape, 0.8, dtype)
    mask = np.random.default_rng(seed).random(shape) < 0.9 if masked else None
    edges = MaskedEdges(edge_offset, mask, mask_edges=masked or "both")
    expected = chain_affinities(affinities, OFFSETS, PARAMETERS, edges=edges)
    without_small(expected, min_size)
    found = decode(volume(affinities), box_shape, edges=edges, min_size=min_size)
    np.testing.assert_array_equal(found, expected)


@hypothesis.settings(max_examples=8)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    shape=shapes,
    box_shape=boxes,
    edge_offset=st.sampled_from([0, 1]),
    anchor=st.sampled_from([1, 2, 5]),
)
def test_components_that_grow_equal_those_in_memory(
    seed, shape, box_shape, edge_offset, anchor
):
    """Boxes see no more than themselves of the components, and their seams are exact."""
    affinities = neurites(seed, shape, 0.8)[:3]
    parameters = ChainParameters(anchor=anchor, low=0.5, margin=0.02)
    edges = MaskedEdges(edge_offset)
    expected = label_affinities(affinities, 0.8, edge_offset=edge_offset)
    without_small(expected, anchor)
    expected = grown(affinities, expected, parameters, edges)
    numbering.renumber(
        expected.reshape(-1), np.zeros(int(expected.max()) + 1, expected.dtype)
    )
    found = decode(
        volume(affinities, OFFSETS[:3]),
        box_shape,
        parameters,
        threshold=0.8,
        edges=edges,
    )
    np.testing.assert_array_equal(found, expected)


def test_channels_are_taken_by_their_offsets():
    """As files of LSD hold them: z before x, an edge to the voxel before, long ones first."""
    affinities = neurites(5, (9, 8, 7), 0.8)
    expected = decode(volume(affinities), (5, 4, 4))
    order = [5, 2, 3, 1, 4, 0]
    shuffled = volume(affinities[order], [OFFSETS[i] for i in order])
    np.testing.assert_array_equal(decode(shuffled, (5, 4, 4)), expected)
    backward = affinities.copy()
    backward[0, 1:] = affinities[0, :-1]
    turned = volume(backward, ((-1, 0, 0), *OFFSETS[1:]))
    np.testing.assert_array_equal(decode(turned, (5, 4, 4)), expected)


def test_halves_of_a_volume_beyond_the_halo_agree_where_nothing_is_doubtful():
    affinities = neurites(3, (80, 10, 12), 0.2)
    expected = chain_affinities(affinities, OFFSETS, PARAMETERS)
    found = decode(volume(affinities), (20, 10, 12))
    # Two neurites of five planes each, one of which is its neighbour's wall.
    assert expected.max() == found.max() == 2
    np.testing.assert_array_equal(found, expected)


def test_a_mask_of_a_volume_beyond_the_halo_takes_its_edges():
    """A tube of 80 voxels in boxes of 20 and their halo of 16, cut by a masked plane."""
    affinities = np.full((6, 80, 3, 3), 0.9, np.float16)
    mask = np.ones((80, 3, 3), bool)
    mask[50] = False
    found = decode(volume(affinities), (20, 3, 3), edges=MaskedEdges(mask=mask))
    np.testing.assert_array_equal(found[:, 1, 1], [1] * 50 + [0] + [2] * 29)


def test_an_anchor_is_as_large_as_its_parts_together():
    """Twelve voxels along x in boxes of eight, of which six lie in each of two."""
    affinities = np.zeros((6, 40, 1, 1), np.float16)
    affinities[0, 10:21], affinities[3:] = 0.9, 0.9
    twelve = ChainParameters(anchor=12, low=0.6)
    found = decode(volume(affinities), (8, 1, 1), twelve)
    assert np.flatnonzero(found).tolist() == list(range(10, 22))
    thirteen = ChainParameters(anchor=13, low=0.6)
    assert not decode(volume(affinities), (8, 1, 1), thirteen).any()


def test_growth_enters_boxes_that_have_no_fragment_as_far_as_the_halo():
    """An anchor at 0 and 1 grows by .7; the box at 24 reads 16 voxels beside it."""
    affinities = np.zeros((6, 40, 1, 1), np.float16)
    affinities[0, 0], affinities[0, 1:39] = 0.9, 0.7
    # Edges of .7 attract by .65 and would join; so only above a logit of 1 they do.
    parameters = ChainParameters(attract=1.0, anchor=2, low=0.6)
    assert decode(volume(affinities), (40, 1, 1), parameters).all()
    # 0-11 and 12-23 see the anchor: 12 - 16 < 1. Box 24-35 begins to read at 8.
    found = decode(volume(affinities), (12, 1, 1), parameters)
    assert np.flatnonzero(found).tolist() == list(range(24))


def test_labels_depend_on_neither_memory_nor_order():
    affinities = volume(neurites(4, (40, 12, 11), 0.8))
    expected = decode(affinities, (12, 6, 11))
    output = np.zeros(affinities.spatial_shape, np.uint32)
    chain_volume(
        affinities,
        from_array(output, "xyz"),
        parameters=PARAMETERS,
        memory_gb=0.003,  # one box at a time
        schedule=Schedule(box_shape=(12, 6, 11)),
    )
    np.testing.assert_array_equal(output, expected)


def test_memory_below_a_box_is_refused():
    affinities = volume(neurites(0, (40, 12, 11), 0.8))
    # 8 bytes for each of 2^16 affinities, and 48 for each of 40 x 12 x 11 = 5,280 voxels: of
    # growth 6 + 2 + 4 + 28, and 8 of labels. The fragments need 68 for each, so less.
    with pytest.raises(
        InputError,
        match=r"decode.memory_gb is 0.0007; a box of 40 x 12 x 11 voxels .* 0.000778",
    ):
        check_chain(affinities, PARAMETERS, memory_gb=0.0007)
    check_chain(affinities, PARAMETERS, memory_gb=0.00078)


@pytest.mark.parametrize(
    "channels, options, said",
    [
        (3, {}, r"of 3 channels; .*decode.method=chain3"),
        (6, {"parameters": ChainParameters(margin=0.0)}, "margin of contested growth"),
        (3, {"threshold": 2.0}, "threshold 2.0"),
        (6, {"edges": MaskedEdges(mask=np.ones((2, 2, 2), bool))}, r"\(2, 2, 2\)"),
    ],
)
def test_bad_input_is_refused(channels, options, said):
    affinities = volume(neurites(0, (4, 4, 4), 0.1)[:channels], OFFSETS[:channels])
    with pytest.raises(InputError, match=said):
        decode(affinities, **options)
