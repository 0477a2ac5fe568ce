import numpy as np
import pytest

from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex import mutex_affinities
from nisbjax.errors import InputError

SHAPE = (11, 11, 13)


def line():
    """A row of voxels along z at .9, all else 0; the long channels say nothing."""
    affinities = np.zeros((6, *SHAPE), np.float32)
    affinities[3:] = 1
    affinities[2, 5, 5, :-1] = 0.9
    return affinities


@pytest.mark.parametrize("edge_offset", [0, 1])
def test_repulsion_cuts_the_weakest_link(edge_offset):
    affinities = line()
    affinities[2, 5, 5, 5] = 0.6
    affinities[5, 5, 5, 1] = 0.1  # voxel 1 and voxel 11 are not one
    if edge_offset:
        affinities[2] = np.roll(affinities[2], 1, 2)
        affinities[5] = np.roll(affinities[5], 10, 2)
    # Attraction .4 and .1 (at 5), repulsion .3: the .1 comes too late.
    labels = mutex_affinities(affinities, 0.5, 0.4, edges=MaskedEdges(edge_offset))
    assert labels[5, 5].tolist() == [1] * 6 + [2] * 7
    assert labels.sum() == 6 + 2 * 7
    # Weak repulsion (.05) comes after everything is joined.
    labels = mutex_affinities(affinities, 0.5, 0.15, edges=MaskedEdges(edge_offset))
    assert labels[5, 5].tolist() == [1] * 13


def test_without_repulsion_it_is_the_plain_decode():
    rng = np.random.default_rng(0)
    affinities = rng.random((6, *SHAPE)).astype(np.float16)
    affinities[3:] = 1
    mask = rng.random(SHAPE) < 0.9
    for mask_edges in ("both", "source"):
        options = {"mask": mask, "mask_edges": mask_edges}
        # No edges through the outermost planes, where the plain decoder counts voxels
        # whose only edge leaves the volume.
        for axis in range(3):
            np.moveaxis(affinities[axis], axis, 0)[-1] = 0
        expected = label_affinities(affinities, 0.7, **options)
        labels = mutex_affinities(affinities, 0.7, 0.5, edges=MaskedEdges(**options))
        np.testing.assert_array_equal(labels, expected)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="3 channels for 6 offsets.*predict.channels"):
        mutex_affinities(np.zeros((3, *SHAPE), np.float32), 0.5, 0.4)
    with pytest.raises(InputError, match=r"shape \(4, 11, 13\) is smaller than an off"):
        mutex_affinities(np.zeros((6, 4, 11, 13), np.float32), 0.5, 0.4)
    with pytest.raises(InputError, match="threshold 1.5"):
        mutex_affinities(np.zeros((6, *SHAPE), np.float32), 0.5, 1.5)
