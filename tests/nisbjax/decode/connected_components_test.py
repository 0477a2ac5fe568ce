import collections
import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nisbjax.decode.connected_components import label_affinities, label_box
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.errors import InputError
from nisbjax.mask import MaskSpec
from nisbjax.store.volume import from_array


def flood(affinities, threshold, *, edge_offset=0, mask=None, mask_edges="both"):
    """Labels voxel by voxel, from the definition: adjacency lists and a queue."""
    if affinities.dtype == np.uint8:
        above = affinities[:3] / 255 > threshold
    else:
        with np.errstate(invalid="ignore"):
            above = affinities[:3] > affinities.dtype.type(threshold)
    shape = above.shape[1:]
    neighbours = collections.defaultdict(list)
    foreground = set()
    for channel, *v in itertools.product(range(3), *map(range, shape)):
        v = tuple(v)
        w = tuple(i + (axis == channel) for axis, i in enumerate(v))
        inside = w[channel] < shape[channel]
        stored, other = (w, v) if edge_offset else (v, w)
        first = v[channel] == 0 and above[(channel, *v)]
        if edge_offset and first and (mask is None or mask[v]):
            foreground.add(v)  # its edge comes from outside of the volume
        if edge_offset and not inside:
            continue
        if not above[(channel, *stored)]:
            continue
        if mask is not None and not mask[stored]:
            continue
        if mask is not None and mask_edges == "both" and inside and not mask[other]:
            continue
        foreground.add(stored)
        if inside:
            neighbours[v].append(w)
            neighbours[w].append(v)
            foreground |= {v, w}
    labels = np.zeros(shape, np.int64)
    count = 0
    for v in itertools.product(*map(range, shape)):
        if v not in foreground or labels[v]:
            continue
        count += 1
        labels[v] = count
        queue = collections.deque([v])
        while queue:
            for w in neighbours[queue.popleft()]:
                if not labels[w]:
                    labels[w] = count
                    queue.append(w)
    return labels


def noise(seed, shape, dtype, channels=3):
    """Uniform affinities with some NaN, negative values, 1 and 0 among them."""
    rng = np.random.default_rng(seed)
    values = rng.random((channels, *shape))
    if dtype == np.uint8:
        return (values * 255).round().astype(np.uint8)
    values = values.astype(dtype)
    for special in (np.nan, -0.9, -0.0, 0.0, 1.0, np.inf, -np.inf):
        values[rng.random(values.shape) < 0.02] = special
    return values


def test_a_volume_drawn_by_hand():
    # One plane of x, 3 rows of y, 5 voxels of z. Edges along z (-) and y (|), at .5:
    #   y=0   a-a b . c      c: its y affinity is .6, and below it lies c too
    #   y=1   . b-b . c      b is reached from (0, 2) downwards
    #   y=2   . . . . d      d: only an x edge, which leaves the volume -> its own segment
    affinities = np.zeros((3, 1, 3, 5), np.float32)
    z, y, x = affinities[2, 0], affinities[1, 0], affinities[0, 0]
    z[0, 0] = 0.9
    z[1, 1] = 0.9
    y[0, 2] = 0.9
    y[0, 4] = 0.6
    x[2, 4] = 0.9
    z[2, 0] = 0.5  # not above the threshold
    expected = [[[1, 1, 2, 0, 3], [0, 2, 2, 0, 3], [0, 0, 0, 0, 4]]]
    labels = label_affinities(affinities, 0.5)
    assert labels.dtype == np.uint32
    assert labels.tolist() == expected
    # The same edges, stored at their destination.
    z, y = np.roll(affinities[2], 1, 2), np.roll(affinities[1], 1, 1)
    rolled = np.stack([affinities[0], y, z])
    assert label_affinities(rolled, 0.5, edge_offset=1).tolist() == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
@pytest.mark.parametrize("edge_offset", [0, 1])
@hypothesis.given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 9)),
    threshold=st.sampled_from([0.0, 0.3, 0.6, 0.7, 0.8, 0.95, 1.0]),
    seed=st.integers(0, 2**32 - 1),
    masked=st.sampled_from(["", "both", "source"]),
    threads=st.integers(1, 5),
)
def test_equals_the_definition(
    dtype, edge_offset, shape, threshold, seed, masked, threads
):
    affinities = noise(seed, shape, dtype)
    mask = np.random.default_rng(seed).random(shape) < 0.8 if masked else None
    options = {"edge_offset": edge_offset, "mask_edges": masked or "both"}
    expected = flood(affinities, threshold, mask=mask, **options)
    labels = label_affinities(
        affinities, threshold, mask=mask, threads=threads, **options
    )
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("length", [63, 64, 65, 130])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_rows_of_several_words(length, threshold):
    affinities = noise(length, (3, 4, length), np.float16)
    mask = np.random.default_rng(1).random((3, 4, length)) < 0.95
    for edge_offset, mask_edges in itertools.product((0, 1), ("both", "source")):
        options = {"edge_offset": edge_offset, "mask_edges": mask_edges}
        expected = flood(affinities, threshold, mask=mask, **options)
        labels = label_affinities(affinities, threshold, mask=mask, **options)
        np.testing.assert_array_equal(labels, expected)


def test_a_serpentine_of_a_million_voxels_is_one_segment():
    # Rows along z joined at alternating ends, planes joined at alternating corners: a path
    # of 101 x 100 x 101 voxels that any label must travel to its end.
    affinities = np.zeros((3, 101, 100, 101), np.float16)
    affinities[2] = 1
    affinities[2, :, :, -1] = 0
    affinities[1, :, 0::2, -1] = 1
    affinities[1, :, 1::2, 0] = 1
    affinities[1, :, -1, :] = 0
    affinities[0, 0::2, -1, 0] = 1  # rows 0..99 end at z = 0
    affinities[0, 1::2, 0, 0] = 1
    affinities[0, -1] = 0
    for threads in (1, 3, 101):
        assert (label_affinities(affinities, 0.5, threads=threads) == 1).all()
    affinities[2, 50, 50, 50] = 0
    labels = label_affinities(affinities, 0.5)
    # Plane 50 runs from row 0: before the cut lie 50 planes, 50 rows and z = 0..50.
    assert labels.max() == 2
    assert (labels == 1).sum() == 50 * 100 * 101 + 50 * 101 + 51


def test_all_layouts_of_an_array_give_the_same_labels():
    affinities = noise(3, (4, 5, 6), np.float32, channels=6)
    expected = label_affinities(affinities, 0.6)
    last = np.ascontiguousarray(np.moveaxis(affinities, 0, -1))
    np.testing.assert_array_equal(
        label_affinities(np.moveaxis(last, -1, 0), 0.6), expected
    )
    frozen = affinities.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(label_affinities(frozen, 0.6), expected)


def test_labels_of_64_bits_are_the_same():
    affinities = noise(4, (6, 5, 70), np.float16)
    expected = label_affinities(affinities, 0.7)
    wide, count = label_box(affinities, 0.7, MaskedEdges(), threads=3, dtype=np.uint64)
    assert wide.dtype == np.uint64
    assert count == expected.max()
    np.testing.assert_array_equal(wide, expected)


def test_float16_compares_with_the_rounded_threshold():
    # .7 rounds up to .70019...: the float16 neighbour above it is an edge, it is not.
    rounded = np.float16(0.7)
    affinities = np.zeros((3, 1, 1, 3), np.float16)
    affinities[2, 0, 0] = [rounded, np.nextafter(rounded, np.float16(1)), 0]
    assert label_affinities(affinities, 0.7).tolist() == [[[0, 1, 1]]]


def test_uint8_is_compared_as_a_fraction_of_255():
    # 153 / 255 = .6 is not above .6; 154 / 255 is.
    affinities = np.zeros((3, 1, 1, 3), np.uint8)
    affinities[2, 0, 0] = [153, 154, 0]
    assert label_affinities(affinities, 0.6).tolist() == [[[0, 1, 1]]]


def test_an_edge_into_a_masked_voxel_stays_only_for_source():
    affinities = np.zeros((3, 1, 1, 5), np.float32)
    affinities[2] = 1
    mask = np.array([[[1, 1, 0, 1, 1]]], np.uint8)
    both = label_affinities(affinities, 0.5, mask=mask)
    source = label_affinities(affinities, 0.5, mask=mask, mask_edges="source")
    assert both.tolist() == [[[1, 1, 0, 2, 2]]]
    assert source.tolist() == [[[1, 1, 1, 2, 2]]]  # the edge 1 -> 2 is stored at 1


@pytest.mark.parametrize("mask_edges", ["both", "source"])
def test_a_specification_and_its_array_mask_alike(mask_edges):
    shape = (9, 8, 10)
    affinities = noise(5, shape, np.float16)
    image = np.random.default_rng(6).integers(0, 60, (*shape, 1)).astype(np.uint8)
    spec = MaskSpec(shape, low_z=2, high_z=9, border_width=2, bg_thresh=30.0)
    # Written out by hand: planes 2..8, without dark voxels of the outer two of x and y.
    x, y, z = np.indices(shape)
    ring = (x < 2) | (x >= 7) | (y < 2) | (y >= 6)
    mask = (z >= 2) & (z < 9) & ~(ring & (image[..., 0] <= 30))
    expected = label_affinities(affinities, 0.6, mask=mask, mask_edges=mask_edges)
    for source in (image, image[..., 0], from_array(image, "xyzc")):
        labels = label_affinities(
            affinities, 0.6, mask=spec, image=source, mask_edges=mask_edges
        )
        np.testing.assert_array_equal(labels, expected)
    volume = from_array(mask.astype(np.uint8), "xyz")
    labels = label_affinities(affinities, 0.6, mask=volume, mask_edges=mask_edges)
    np.testing.assert_array_equal(labels, expected)


def test_a_specification_without_its_image_is_refused():
    affinities = np.zeros((3, 4, 4, 4), np.float32)
    spec = MaskSpec((4, 4, 4), 0, 4, 1, 30.0)
    with pytest.raises(InputError, match="needs the source image"):
        label_affinities(affinities, 0.5, mask=spec)
    with pytest.raises(InputError, match=r"\(4, 4, 5\) does not match the mask's"):
        label_affinities(
            affinities, 0.5, mask=spec, image=np.zeros((4, 4, 5), np.uint8)
        )


@pytest.mark.parametrize(
    ("affinities", "options", "message"),
    [
        (np.zeros((2, 2, 2, 2), np.float32), {}, "2 channel.*at least 3"),
        (np.zeros((3, 2, 2, 2), np.float64), {}, "are float64; wanted float16"),
        (np.zeros((3, 2, 2, 2), np.float32), {"threshold": 1.5}, "1.5 .* from 0 to 1"),
        (
            np.zeros((3, 2, 2, 2), np.float32),
            {"threshold": float("nan")},
            "nan .* from 0 to 1",
        ),
        (np.zeros((3, 2, 2, 2), np.uint8), {"threshold": -0.1}, "-0.1 .* from 0 to 1"),
        (
            np.zeros((3, 2, 2, 2), np.float32),
            {"mask": np.ones((2, 2, 3), bool)},
            r"mask \(2, 2, 3\) does not match affinities \(2, 2, 2\); rerun --mode=mask",
        ),
        (np.zeros((3, 2, 2, 2), np.float32), {"edge_offset": 2}, "edge_offset is 2"),
        (
            np.zeros((3, 2, 2, 2), np.float32),
            {"mask_edges": "target"},
            "'target'; wanted one of both, source",
        ),
    ],
)
def test_bad_input_is_named(affinities, options, message):
    options = {"threshold": 0.5, **options}
    with pytest.raises(InputError, match=message):
        label_affinities(affinities, **options)


def test_an_empty_volume_has_no_labels():
    assert label_affinities(np.zeros((3, 0, 4, 4), np.float32), 0.5).shape == (0, 4, 4)
