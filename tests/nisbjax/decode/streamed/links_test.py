"""Joins in the chain: its steps one after another, boxes, and what a kill leaves."""

import numpy as np
import pytest
from small_chains import broken_neurites, labels_at

from nisbjax.decode import chain, numbering
from nisbjax.decode.agglomeration.composition import join_volume
from nisbjax.decode.agglomeration.territories import territories
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.segment_counts import without_small
from nisbjax.decode.streamed import links
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.offsets import OFFSETS_6
from nisbjax.store.volume import from_array

PARAMETERS = ChainParameters(
    anchor=6, low=0.3, margin=0.02, joins="average", faces=4, short=0.1
)


def decode(affinities, output=None, box_shape=None, parameters=PARAMETERS, **options):
    output = np.zeros(affinities.shape[1:], np.uint32) if output is None else output
    chain_volume(
        from_array(affinities, "cxyz"),
        from_array(output, "xyz") if isinstance(output, np.ndarray) else output,
        parameters=parameters,
        memory_gb=1.0,
        schedule=Schedule(box_shape=box_shape),
        **options,
    )
    return output


def in_steps(affinities, folder, edges):
    labels = chain.fragments(affinities, OFFSETS_6, PARAMETERS, edges)
    without_small(labels, PARAMETERS.anchor)
    touching = territories(affinities, labels, 0.3, edges=edges)
    table = join_volume(
        from_array(touching, "xyz"),
        from_array(affinities, "cxyz"),
        folder,
        PARAMETERS,
        memory_gb=1.0,
        edges=edges,
    )
    labels = table[labels].astype(labels.dtype)
    labels = chain.grown(affinities[:3], labels, PARAMETERS, edges)
    numbering.renumber(labels.reshape(-1), np.zeros(labels.max() + 1, labels.dtype))
    return labels


@pytest.mark.parametrize("edge_offset", [0, 1])
def test_one_box_equals_its_steps(tmp_path, edge_offset):
    affinities = broken_neurites(1, (8, 24, 24))
    mask = np.random.default_rng(2).random((8, 24, 24)) < 0.95
    edges = MaskedEdges(edge_offset, mask)
    wanted = in_steps(affinities, tmp_path, edges)
    np.testing.assert_array_equal(decode(affinities, edges=edges), wanted)


def test_what_is_broken_joins_along_its_neurite_alone():
    affinities = broken_neurites(3, (16, 24, 48))
    apart = decode(affinities, parameters=ChainParameters(anchor=6, low=0.3))
    assert apart.max() == 4
    joined = decode(affinities)
    assert joined.max() == 2
    assert len(np.unique(joined[:, :12])) == len(np.unique(joined[:, 12:])) == 1
    boxes = decode(affinities, box_shape=(8, 16, 20))
    np.testing.assert_array_equal(boxes, joined)
    # A mask's holes are left out in boxes too, in the middle of a joint and of a neurite.
    mask = np.ones(affinities.shape[1:], bool)
    mask[5:10, 3:7, 22:26] = mask[2:6, 14:18, 5:9] = False
    edges = MaskedEdges(mask=mask)
    joined = decode(affinities, edges=edges)
    assert joined.max() == 2
    np.testing.assert_array_equal(joined > 0, mask)
    boxes = decode(affinities, box_shape=(8, 16, 20), edges=edges)
    np.testing.assert_array_equal(boxes, joined)


def test_components_of_three_channels_join_by_their_faces():
    # Without long-range links the wall of .1 (logit -2.2) is what keeps the neurites apart.
    affinities = broken_neurites(3, (16, 24, 48))[:3]
    chosen = {"anchor": 6, "low": 0.6, "margin": 0.02}
    apart = decode(affinities, parameters=ChainParameters(**chosen), threshold=0.6)
    assert apart.max() == 4
    joins = ChainParameters(joins=("average",), faces=4, short=0.1, **chosen)
    joined = decode(affinities, parameters=joins, threshold=0.6)
    assert joined.max() == 2
    assert len(np.unique(joined[:, :12])) == len(np.unique(joined[:, 12:])) == 1
    boxes = decode(affinities, None, (8, 16, 20), parameters=joins, threshold=0.6)
    np.testing.assert_array_equal(boxes, joined)


def test_small_fragments_are_absorbed_and_quantiles_join():
    affinities = broken_neurites(3, (16, 24, 48))
    # Each half of a neurite has 16 x 12 x 24 = 4,608 voxels; none is small.
    chosen = {"anchor": 6, "low": 0.3, "faces": 4, "short": 0.1}
    small = ChainParameters(joins=("absorb",), absorb_below=4608, **chosen)
    assert decode(affinities, parameters=small).max() == 4
    # The median of the plane between two halves is .54, in bin 138: 1 - .541 = .459.
    for threshold, segments in ((0.45, 4), (0.47, 2)):
        median = ChainParameters(
            joins=("quantile",), quantile_threshold=threshold, **chosen
        )
        found = decode(affinities, parameters=median)
        assert found.max() == segments
        boxes = decode(affinities, None, (8, 16, 20), parameters=median)
        np.testing.assert_array_equal(boxes, found)


class Stopped(Exception):
    pass


def test_a_killed_attempt_is_resumed(tmp_path, monkeypatch):
    affinities, shape = broken_neurites(4, (8, 24, 40)), (8, 24, 40)
    wanted = decode(affinities, box_shape=(8, 12, 20))
    output = labels_at(tmp_path / "l.zarr", shape, 40)

    def stop(*_, **__):
        raise Stopped

    for place in ("territories", "joined_labels"):
        with monkeypatch.context() as patch:
            patch.setattr(links, place, stop)
            with pytest.raises(Stopped):
                decode(affinities, output, (8, 12, 20))
    decode(affinities, output, (8, 12, 20))
    np.testing.assert_array_equal(output.read(), wanted)
    assert not (tmp_path / "l.zarr" / ".scratch").exists()
