"""Channels by their offsets: every way to store the same edges decodes to the same labels."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisbjax.decode import channels, whole
from nisbjax.decode.channels import short_range, with_long_range
from nisbjax.decode.connected_components import label_affinities
from nisbjax.decode.grow import GrowParameters
from nisbjax.decode.streamed.labeling import label_volume
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.decode.thresholds.sweep import nodes_by_threshold
from nisbjax.errors import InputError
from nisbjax.offsets import SHORT_RANGE, edge_slices
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume, create_zarr, from_array, open_affinities

SHAPE = (5, 4, 6)
LONG = ((3, 0, 0), (0, 3, 0), (0, 0, -3))
EDGE = np.random.default_rng(1).random((6, *SHAPE)).astype(np.float32)
for _edges, _offset in zip(EDGE, SHORT_RANGE + LONG, strict=True):
    _inside = np.zeros(SHAPE, bool)
    _inside[edge_slices(SHAPE, _offset)[0]] = True
    _edges[~_inside] = 0


def stored(offsets, at_destination=False):
    """The edges EDGE, each channel as its offset, of either sign, says."""
    known = dict(zip(SHORT_RANGE + LONG, EDGE, strict=True))
    found = np.zeros((len(offsets), *SHAPE), np.float32)
    for channel, offset in enumerate(offsets):
        turned = tuple(-o for o in offset)
        forward = offset if offset in known else turned
        sources, destinations = edge_slices(SHAPE, forward)
        # v -> v + offset stored at v, where -offset stored at v + offset is the same edge.
        at = destinations if (forward == turned) ^ at_destination else sources
        found[channel][at] = known[forward][sources]
    return found


def volume(array, offsets=None, axes="", **attributes):
    if offsets is not None:
        attributes["offsets"] = offsets
    return Volume(from_array(array, "cxyz").store, "cxyz", attributes, "in.h5", axes)


def negative(offset):
    x, y, z = offset
    return -x, -y, -z


orders = st.permutations(range(6))
signs = st.lists(st.booleans(), min_size=6, max_size=6)


@given(orders, signs, st.booleans())
def test_any_order_sign_and_end_gives_the_same_labels(order, turned, at_destination):
    offsets = [
        negative(o) if turn else o
        for o, turn in zip(
            np.array((*SHORT_RANGE, *LONG))[order].tolist(), turned, strict=True
        )
    ]
    offsets = [tuple(o) for o in offsets]
    view, edge_offset = short_range(
        volume(stored(offsets, at_destination), [list(o) for o in offsets]),
        int(at_destination),
    )
    found = label_affinities(view.read(), 0.6, edge_offset=edge_offset)
    np.testing.assert_array_equal(found, label_affinities(EDGE[:3], 0.6))
    again, same = short_range(view, edge_offset)
    assert same == edge_offset
    np.testing.assert_array_equal(again.read(), view.read())


def test_ends_that_differ_are_moved_to_the_source_and_the_last_edge_leaves():
    # Channel 0 is -y stored at v, so at the destination of +y; x and z at their source.
    offsets = ((0, -1, 0), (1, 0, 0), (0, 0, 1))
    view, edge_offset = short_range(volume(stored(offsets), offsets))
    assert edge_offset == 0
    np.testing.assert_array_equal(view.read(), EDGE[:3])
    assert not view.read()[1, :, -1].any()
    part = view.store[:, 1:3, 2:4, 0:5].read().result()
    np.testing.assert_array_equal(part, EDGE[:3, 1:3, 2:4, 0:5])


def test_a_plane_that_is_the_whole_axis():
    array = np.ones((3, 1, 2, 2), np.uint8)
    view, edge_offset = short_range(volume(array, [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    assert edge_offset == 0
    assert not view.read()[0].any() and view.read()[1:].all()


@pytest.mark.parametrize(
    "offsets", [((0, 0, 1), (0, 1, 0), (1, 0, 0)), ((0, -1, 0), (1, 0, 0), (0, 0, 1))]
)
def test_streamed_grown_and_swept_alike_from_a_file(tmp_path, offsets):
    array = stored(offsets)
    written = create_zarr(
        tmp_path / "a.zarr",
        shape=array.shape,
        dtype=np.float32,
        chunks=(1, 2, 2, 3),
        axes="cxyz",
        attributes={"offsets": [list(o) for o in offsets]},
    )
    written.write(..., array)
    file = open_affinities(tmp_path / "a.zarr")
    expected = label_affinities(EDGE[:3], 0.6)
    out = np.zeros(SHAPE, np.uint32)
    schedule = Schedule(box_shape=(2, 4, 3))
    label_volume(file, from_array(out, "xyz"), 0.6, memory_gb=1.0, schedule=schedule)
    np.testing.assert_array_equal(out, expected)
    grown = np.zeros(SHAPE, np.uint32)
    whole.grow_volume(
        file,
        from_array(grown, "xyz"),
        parameters=GrowParameters(0.6, 0.6, min_seed=1),
        memory_gb=1.0,
    )
    np.testing.assert_array_equal(grown, expected)
    positions = np.array(list(itertools.product(*map(range, SHAPE))))
    (swept,) = nodes_by_threshold(file, positions, (0.6,), box_shape=(2, 4, 3))
    pairs = set(zip(swept.tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(set(swept)) == len(np.unique(expected))
    view, _ = short_range(file)
    again = pickle.loads(pickle.dumps(view.store))
    np.testing.assert_array_equal(again.read().result(), EDGE[:3])


def test_offsets_in_the_order_of_the_files_own_axes():
    # Stored c z y x: (1, 0, 0) is one voxel along z. Read as c x y z, channel 0 is +z.
    offsets = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    file = volume(stored(offsets), [o[::-1] for o in offsets], axes="czyx")
    np.testing.assert_array_equal(short_range(file)[0].read(), EDGE[:3])


def test_long_range_edges_come_behind_and_twice_named_neighbours_once():
    offsets = (LONG[0], (0, 0, 1), LONG[2], (1, 0, 0), (0, 1, 0), (-1, 0, 0))
    view, found = with_long_range(volume(stored(offsets), offsets))
    assert found == (*SHORT_RANGE, LONG[0], LONG[2])
    np.testing.assert_array_equal(view.read(), EDGE[[0, 1, 2, 3, 5]])


def test_channels_without_an_edge_are_passed_over():
    offsets = (None, (1, 0, 0), (0, 1, 0), (0, 0, 1))
    array = np.concatenate([np.ones((1, *SHAPE), np.float32), EDGE[:3]])
    view, _ = short_range(volume(array, offsets))
    np.testing.assert_array_equal(view.read(), EDGE[:3])
    assert with_long_range(volume(array, offsets))[1] == SHORT_RANGE


def test_a_file_that_says_nothing_or_the_usual_is_the_view_itself():
    for offsets in (None, SHORT_RANGE, "[[1, 0, 0], [0, 1, 0], [0, 0, 1]]"):
        file = volume(EDGE[:3], offsets)
        assert short_range(file, 1) == (file, 1)
    with pytest.raises(InputError, match="in.h5 does not name the offsets"):
        with_long_range(volume(EDGE))


@pytest.mark.parametrize(
    ("offsets", "count", "message"),
    [
        (
            LONG,
            3,
            r"holds \(3, 0, 0\).*wanted the edge .* along x and y and z too: pred",
        ),
        (((1, 0, 0), (0, 1, 0)), 2, "next voxel along z too"),
        ([None, None], 2, "holds no edges by its"),
        (((1, 0, 0), (0, 1, 0)), 3, "for each of its 3 channels"),
        ("x y z", 3, "in.h5: offsets are x y z; wanted three whole numbers for each"),
        ("[" * 100_000, 3, "wanted three whole numbers for each of its 3"),
        (5, 3, "offsets are 5; wanted three"),
        (
            ((1, 0, 0), (0, 1, 0), (0, 1, 0)),
            3,
            r"\(0, 1, 0\) for channels 1 and 2; wan",
        ),
        (((1, 0, 0), (0, 0, 0), (0, 0, 1)), 3, "channel 1; wanted .* not all 0"),
        (((1, 0), (0, 1, 0), (0, 0, 1)), 3, "channel 0; wanted three whole"),
        (("a", (0, 1, 0), (0, 0, 1)), 3, "offsets name a for channel 0"),
        (((1, 0.5, 0), (0, 1, 0), (0, 0, 1)), 3, "channel 0; wanted three whole"),
        (((float("nan"), 0, 0), (0, 1, 0), (0, 0, 1)), 3, "channel 0; wanted three"),
        (((1e300, 0, 0), (0, 1, 0), (0, 0, 1)), 3, "channel 0; wanted three"),
        (((True, 0, 0), (0, 1, 0), (0, 0, 1)), 3, "channel 0; wanted three"),
        (None, 2, "has 2 channel.*wanted at least 3, the edges on x, y and z"),
    ],
)
def test_what_means_nothing_or_is_not_there_is_named(offsets, count, message):
    with pytest.raises(InputError, match=message):
        channels.short_range(volume(EDGE[:count], offsets))


@pytest.mark.parametrize("turned", [False, True])
def test_damage_is_found_behind_a_view(tmp_path, turned):
    # Channels z y x; with `turned`, y is stored at its destination and moved.
    offsets = ((0, 0, 1), (0, -1 if turned else 1, 0), (1, 0, 0))
    path = tmp_path / "raw.zarr"
    with Manifest(path, {}) as manifest:
        array = stored(offsets)
        written = create_zarr(
            path,
            shape=array.shape,
            dtype=np.float32,
            chunks=(1, 5, 2, 6),
            axes="cxyz",
            attributes={"offsets": [list(o) for o in offsets]},
        )
        written.write(..., array)
        manifest.record("all", written.chunk_facts(..., path))
        manifest.finish()
    chunk = path / "1.0.1.0"  # y 2 and 3 of the edges along y
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    view, _ = short_range(open_affinities(path))
    view = pickle.loads(pickle.dumps(view))
    with pytest.raises(InputError, match="raw.zarr.*1.0.1.0"):
        view.read()
    view, _ = short_range(open_affinities(path))
    # The plane y = 0 of what was moved is y = 1 on disk; y = 1 is y = 2.
    np.testing.assert_array_equal(view.read(np.s_[:, :, 0:1]), EDGE[:3, :, 0:1])
    with pytest.raises(InputError, match="raw.zarr.*1.0.1.0"):
        view.read(np.s_[:, :, 1:2] if turned else np.s_[:, :, 2:3])
