"""A volume in memory whose boxes are decoded, one by one, into records."""

import numpy as np
import pytest

from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed import scratch
from nisbjax.decode.streamed.boxes import ComponentsDecoder
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.store.volume import from_array


@pytest.fixture
def decoder_of(tmp_path):
    """Takes affinities, a shape of boxes and edges; returns the decoder of such boxes."""

    def make(affinities, box_shape, edges=None) -> ComponentsDecoder:
        shape = affinities.shape[1:]
        folder = tmp_path / "scratch"
        return ComponentsDecoder(
            from_array(affinities, "cxyz"),
            scratch.open_labels(folder, shape, box_shape),
            folder,
            BoxGrid(shape, box_shape),
            0.5,
            edges or MaskedEdges(),
            1,
        )

    return make


@pytest.fixture
def decoded(decoder_of):
    """As `decoder_of`, with all boxes decoded."""

    def make(*arguments) -> ComponentsDecoder:
        decoder = decoder_of(*arguments)
        for index in range(len(decoder.grid.boxes)):
            decoder(index)
        return decoder

    return make


@pytest.fixture
def row_of_six():
    """Six voxels along x with the edges 0-1, 1-2 and 4-5, stored at their source."""
    affinities = np.zeros((3, 6, 1, 1), np.float32)
    affinities[0, [0, 1, 4]] = 1
    return affinities
