"""Which edges count: the row that the docstring draws, and what is refused."""

import pickle

import numpy as np
import pytest

from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.mask import MaskSpec
from nisbjax.store.volume import from_array

MASK = np.array([1, 1, 0, 1, 1]).reshape(1, 1, 5)


def row_of_edges(edge_offset):
    """Voxels 0 to 4 along z with the edges 0-1, 1-2, 2-3 and 3-4."""
    affinities = np.zeros((3, 1, 1, 5), np.float32)
    affinities[2, 0, 0, edge_offset : 4 + edge_offset] = 1
    return affinities


@pytest.mark.parametrize(
    "edge_offset, mask_edges, expected",
    [
        (0, "both", [1, 1, 0, 2, 2]),  # 0-1, 3-4
        (0, "source", [1, 1, 1, 2, 2]),  # 1-2 too: voxel 1 holds it
        (1, "both", [1, 1, 0, 2, 2]),
        (1, "source", [1, 1, 2, 2, 2]),  # 2-3 too: voxel 3 holds it
    ],
)
def test_the_worked_row_of_the_docstring(edge_offset, mask_edges, expected):
    labels = label_affinities(
        row_of_edges(edge_offset),
        0.5,
        edge_offset=edge_offset,
        mask=MASK,
        mask_edges=mask_edges,
    )
    assert labels.ravel().tolist() == expected


def test_an_array_a_volume_and_a_specification_mask_a_box_alike():
    mask = np.zeros((4, 3, 6), np.uint8)
    mask[:, :, 1:4] = 1
    image = np.full((4, 3, 6, 2), 9, np.uint8)
    image[0, 0, 2, 0] = (
        5  # dark, in the ring of width 1; the second channel is not read
    )
    mask[0, 0, 2] = 0
    spec = MaskSpec((4, 3, 6), low_z=1, high_z=4, border_width=1, bg_thresh=5.0)
    box = Box((0, 0, 1), (2, 2, 5))
    stored, image_stored = from_array(mask, "xyz"), from_array(image, "xyzc")
    for edges in (
        MaskedEdges(mask=mask),
        MaskedEdges(mask=mask.astype(bool)),
        MaskedEdges(mask=stored),
        MaskedEdges(mask=spec, image=image),
        MaskedEdges(mask=spec, image=image_stored),
        pickle.loads(pickle.dumps(MaskedEdges(mask=spec, image=image))),
    ):
        edges.require_shape((4, 3, 6))
        found = edges.mask_of(box)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, mask[:2, :2, 1:5] == 1)
        # The same voxels, counted from the start of a box around them.
        found = edges.inside(Box((0, 0, 1), (4, 3, 6))).mask_of(Box.whole((2, 2, 4)))
        np.testing.assert_array_equal(found, mask[:2, :2, 1:5] == 1)
    assert MaskedEdges().mask_of(box) is None


def test_what_is_no_convention_is_refused():
    with pytest.raises(InputError, match="edge_offset is 2; wanted 0 .* or 1"):
        MaskedEdges(2)
    with pytest.raises(InputError, match="mask_edges is 'target'; wanted one of both"):
        MaskedEdges(mask_edges="target")


def test_a_mask_or_an_image_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"mask \(1, 1, 5\) does not match .*1, 1, 6"):
        MaskedEdges(mask=MASK).require_shape((1, 1, 6))
    spec = MaskSpec((4, 3, 6), 1, 4, 1, 5.0)
    image = np.zeros((4, 3, 5), np.uint8)
    match = r"the source image \(4, 3, 5\) does not match the mask's \(4, 3, 6\)"
    with pytest.raises(InputError, match=match):
        MaskedEdges(mask=spec, image=image).require_shape((4, 3, 6))
    # Nothing but a specification looks at an image.
    MaskedEdges(mask=MASK, image=image).require_shape((1, 1, 5))


def test_a_mask_beside_edges_is_refused():
    edges = MaskedEdges(1)
    assert MaskedEdges.of(edges, None) is edges
    assert MaskedEdges.of(None, None) == MaskedEdges()
    assert MaskedEdges.of(None, MASK).mask is MASK
    with pytest.raises(InputError, match="a mask came beside edges"):
        MaskedEdges.of(edges, MASK)
