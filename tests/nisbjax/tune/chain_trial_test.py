"""Trials from tables: at every voxel the segments of a decode, whatever the point."""

import dataclasses
import tempfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np

from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.chain import chain_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.store.volume import from_array
from nisbjax.tune.chain_tables import TableMaker
from nisbjax.tune.chain_trial import ChainTrials

OFFSETS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 0, 0), (0, -2, 1), (0, 0, 5))
RANGES = {
    "attract": (0.0, 0.6),
    "repel": (-0.5, 1.0),
    "anchor": (1, 5),
    "low": (0.3, 0.6),
    "margin": (0.02, 0.1),
}


def volume(affinities, offsets=OFFSETS):
    """[c x y z] in memory, with the offsets of its channels."""
    found = from_array(affinities, "cxyz")
    found.attributes = {"axes": list("cxyz"), "offsets": [list(o) for o in offsets]}
    return found


def decoded(affinities, box_shape, parameters, edges):
    output = np.zeros(affinities.spatial_shape, np.uint32)
    chain_volume(
        affinities,
        from_array(output, "xyz"),
        parameters=parameters,
        memory_gb=1.0,
        edges=edges,
        schedule=Schedule(box_shape=box_shape),
    )
    return output


def tables(folder, affinities, nodes, edges, box_shape, parameters, ranges):
    maker = TableMaker(affinities, edges, nodes, parameters, ranges, box_shape)
    maker.make(Path(folder), 1)
    return ChainTrials(Path(folder), maker.grid, len(nodes), affinities.dtype, 1)


def partition(labels):
    """Labels by their first voxels, so that equal partitions are equal."""
    flat = labels.reshape(-1)
    _, first, which = np.unique(flat, return_index=True, return_inverse=True)
    return np.where(flat == 0, -1, first[which])


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_at_every_voxel_a_trial_has_the_segments_of_a_decode(data, seed):
    rng = np.random.default_rng(seed)
    # The halo is 16, so along x boxes do not see all of the volume.
    shape = (data.draw(st.integers(30, 60)), 6, 7)
    box_shape = data.draw(st.sampled_from([(12, 6, 7), (15, 3, 7), (60, 6, 7)]))
    values = rng.random(data.draw(st.sampled_from([12, 1000]))) ** 0.5
    affinities = values[rng.integers(0, len(values), (6, *shape))].astype(np.float16)
    if data.draw(st.booleans()):
        affinities = (affinities * 255).astype(np.uint8)
    mask = rng.random(shape) < 0.9 if data.draw(st.booleans()) else None
    words = st.sampled_from(["both", "source"])
    edges = MaskedEdges(
        data.draw(st.sampled_from([0, 1])), mask, None, data.draw(words)
    )
    tuned = data.draw(st.sampled_from([("attract", "repel"), tuple(RANGES)]))
    ranges = {name: RANGES[name] for name in tuned}
    nodes = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    parameters = ChainParameters(anchor=4, low=0.4, margin=0.03)
    opened = volume(affinities)
    with tempfile.TemporaryDirectory() as folder:
        trials = tables(folder, opened, nodes, edges, box_shape, parameters, ranges)
        for _ in range(3):
            point = {
                name: data.draw(
                    st.integers(*ends)
                    if isinstance(ends[0], int)
                    else st.sampled_from([*ends, sum(ends) / 2])
                )
                for name, ends in ranges.items()
            }
            chosen = dataclasses.replace(parameters, **point)
            found = trials.segments(chosen)
            expected = decoded(opened, box_shape, chosen, edges)
            np.testing.assert_array_equal(partition(found), partition(expected))


def test_what_is_left_on_disk_are_tables_alone(tmp_path):
    affinities = volume(np.full((6, 40, 4, 4), 0.9, np.float16))
    nodes = np.array([[0, 0, 0], [39, 3, 3]])
    trials = tables(
        tmp_path, affinities, nodes, MaskedEdges(), (20, 4, 4), ChainParameters(), {}
    )
    # All of it is one segment, of one cluster in each box.
    assert trials.segments(ChainParameters()).tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.nodes.npz",
        "0.npz",
        "1.nodes.npz",
        "1.npz",
        "checksums.json",
    ]
