"""The chain, box by box: what depends on boxes, and what does not."""

import numpy as np
import pytest

from nisbjax.decode.chain import ChainParameters, chain_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.offsets import OFFSETS_6
from nisbjax.store.volume import from_array

PARAMETERS = ChainParameters(anchor=6, low=0.3, margin=0.02)


def neurites(seed, shape, noise, dtype=np.float16):
    """Affinities of two neurites side by side along y: .95 less some noise."""
    values = 0.95 - noise * np.random.default_rng(seed).random((6, *shape))
    half = shape[1] // 2
    values[1, :, half - 1] = 0.1
    values[4, :, max(0, half - 10) : half] = 0.02
    return (values * (255 if dtype == np.uint8 else 1)).astype(dtype)


def decode(affinities, box_shape=None, parameters=PARAMETERS, **options):
    output = np.zeros(affinities.shape[1:], np.uint32)
    counts = chain_volume(
        from_array(affinities, "cxyz"),
        from_array(output, "xyz"),
        parameters=parameters,
        memory_gb=options.pop("memory_gb", 1.0),
        schedule=Schedule(box_shape=box_shape),
        **options,
    )
    assert counts.segments == output.max()
    assert counts.labelled == (output > 0).sum()
    return output


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
@pytest.mark.parametrize("edge_offset", [0, 1])
def test_one_box_equals_the_volume_at_once(dtype, edge_offset):
    affinities = neurites(1, (14, 24, 13), 0.5, dtype)
    mask = np.random.default_rng(2).random((14, 24, 13)) < 0.9
    edges = MaskedEdges(edge_offset, mask)
    expected = chain_affinities(affinities, OFFSETS_6, PARAMETERS, edges=edges)
    found = decode(affinities, edges=edges)
    assert expected.max() > 1
    np.testing.assert_array_equal(found, expected)


def test_boxes_of_two_neurites_give_two_neurites():
    """Where nothing is doubtful the boxes agree and the labels are those of the whole."""
    affinities = neurites(3, (40, 24, 40), 0.2)
    expected = chain_affinities(affinities, OFFSETS_6, PARAMETERS)
    found = decode(affinities, (16, 12, 20))
    assert expected.max() == found.max() == 2
    np.testing.assert_array_equal(found, expected)
