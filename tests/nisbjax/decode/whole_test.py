"""Decoders that hold their volume: files in and out, statistics, and what is refused."""

import dataclasses
import logging

import numpy as np
import pytest

from nisbjax.console import progress
from nisbjax.decode import grow, whole
from nisbjax.decode.grow import GrowParameters, grow_affinities
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.mutex import MutexParameters, mutex_affinities
from nisbjax.errors import InputError
from nisbjax.offsets import edge_slices
from nisbjax.store.manifest_lines import path_inside
from nisbjax.store.volume import create_zarr, from_array

SHAPE = (12, 11, 13)
GROWN = GrowParameters(0.8, 0.6, min_seed=5)
MUTEX = MutexParameters(0.7, 0.2)


def random_affinities(channels=3):
    values = np.random.default_rng(0).random((channels, *SHAPE))
    return values.astype(np.float16)


def without_small(labels, min_size):
    """Labels 1..N again without those of fewer voxels."""
    kept = [n for n in range(1, labels.max() + 1) if (labels == n).sum() >= min_size]
    result = np.zeros_like(labels)
    for new, old in enumerate(kept, 1):
        result[labels == old] = new
    return result


@pytest.mark.parametrize("min_size", [0, 4])
def test_growing_writes_the_labels_with_mask_and_statistics(min_size):
    affinities = random_affinities(6)
    mask = np.random.default_rng(1).random(SHAPE) < 0.9
    output = np.zeros(SHAPE, np.uint32)
    edges = MaskedEdges(1, mask, mask_edges="source")
    statistics = whole.grow_volume(
        from_array(affinities, "cxyz"),
        from_array(output, "xyz"),
        parameters=GROWN,
        memory_gb=1.0,
        min_size=min_size,
        edges=edges,
    )
    expected = grow_affinities(affinities, 0.8, 0.6, min_seed=5, edges=edges)
    if min_size:
        expected = without_small(expected, min_size)
    np.testing.assert_array_equal(output, expected)
    sizes = np.bincount(expected.ravel())[1:]
    assert statistics.segments == len(sizes)
    assert statistics.largest == sizes.max()
    assert statistics.labelled == sizes.sum()
    assert statistics.attributes()["background"] == round((expected == 0).mean(), 6)


def test_mutex_takes_the_offsets_of_the_file():
    affinities = random_affinities(6)
    offsets = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 0], [0, 3, 0], [0, 0, 3]]
    output = np.zeros(SHAPE, np.uint32)
    options = {"parameters": MUTEX, "memory_gb": 1.0}
    whole.mutex_volume(
        from_array(affinities, "cxyz", {"offsets": offsets}),
        from_array(output, "xyz"),
        **options,
    )
    expected = mutex_affinities(
        affinities, 0.7, 0.2, offsets=[tuple(o) for o in offsets]
    )
    np.testing.assert_array_equal(output, expected)
    assert len(np.unique(output)) > 2
    # A file that names none has those of BANIS, ten voxels long.
    whole.mutex_volume(
        from_array(affinities, "cxyz"), from_array(output, "xyz"), **options
    )
    np.testing.assert_array_equal(output, mutex_affinities(affinities, 0.7, 0.2))


def test_mutex_reads_the_same_edges_in_any_order_and_from_either_end():
    """An edge o stored at v is the edge -o stored at v + o; no two values are equal."""
    offsets = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 0, 0), (0, 3, 0), (0, 0, 3)]
    affinities = np.random.default_rng(0).random((6, *SHAPE), np.float32)
    expected = mutex_affinities(affinities, 0.7, 0.2, offsets=offsets)
    written = np.ones_like(affinities)  # what leaves the volume is no edge
    named = []
    for row, (channel, sign) in enumerate(zip([4, 2, 0, 5, 1, 3], [1, -1] * 3)):
        offset = offsets[channel]
        named.append([sign * o for o in offset])
        source, target = edge_slices(SHAPE, offset)
        place = source if sign > 0 else target
        written[(row, *place)] = affinities[(channel, *source)]
    output = np.zeros(SHAPE, np.uint32)
    whole.mutex_volume(
        from_array(written, "cxyz", {"offsets": named}),
        from_array(output, "xyz"),
        parameters=MUTEX,
        memory_gb=1.0,
    )
    np.testing.assert_array_equal(output, expected)
    assert len(np.unique(output)) > 2


@pytest.mark.parametrize(
    "name, decode, parameters",
    [
        ("grow", whole.grow_volume, GROWN),
        ("grow", whole.grow_volume, dataclasses.replace(GROWN, grow_margin=0.03)),
        ("mutex", whole.mutex_volume, MUTEX),
    ],
)
def test_the_log_says_how_far_it_is_and_parts_change_nothing(
    name, decode, parameters, monkeypatch, caplog
):
    affinities = random_affinities(6)
    offsets = {"offsets": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 0], [0, 3, 0]]}
    offsets["offsets"] += [[0, 0, 3]]
    caplog.set_level(logging.INFO)
    made = []
    for size in (1 << 24, 100):
        monkeypatch.setattr(progress, "_PART", size)
        monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
        output = np.zeros(SHAPE, np.uint32)
        volume = from_array(affinities, "cxyz", offsets)
        written = from_array(output, "xyz")
        decode(volume, written, parameters=parameters, memory_gb=1.0)
        made.append(output)
    np.testing.assert_array_equal(*made)
    assert len(np.unique(made[0])) > 2
    # Of one part alone nothing is said: it is the end. Of 100 edges each, all but the last.
    lines = [line for line in caplog.messages if line.startswith(f"{name}: ")]
    total = int(lines[0].split()[3])
    assert [line.split(" edges")[0] for line in lines] == [
        f"{name}: {done} of {total}" for done in range(100, total, 100)
    ]


def test_a_finished_file_is_taken_and_another_setting_refused(tmp_path, monkeypatch):
    output = create_zarr(
        tmp_path / "labels.zarr", shape=SHAPE, dtype=np.uint32, chunks=SHAPE, axes="xyz"
    )
    affinities = from_array(random_affinities(), "cxyz")
    given = {"parameters": GROWN, "memory_gb": 1.0}
    done = whole.grow_volume(affinities, output, **given)
    assert path_inside(output.source).exists()
    monkeypatch.setattr(grow, "grow_affinities", None)  # not called again
    assert whole.grow_volume(affinities, output, **given) == done
    with pytest.raises(InputError, match="other min_seed .*: 5, now 6"):
        given["parameters"] = dataclasses.replace(GROWN, min_seed=6)
        whole.grow_volume(affinities, output, **given)


def test_too_little_memory_is_said_beforehand():
    # 1716 voxels: float16 3 x 2, mask and image 2, forest 5, edges 12 = 25 bytes each, and
    # 8 bytes for each of 65,536 buckets: 567,188 bytes. Mutex: affinities 12, trees
    # and rings 12, edges 8, and 12 for each of three that repel = 68 each: 116,688.
    assert grow.memory_bytes(np.dtype(np.float16), 1716) == 567_188
    output = from_array(np.zeros(SHAPE, np.uint32), "xyz")
    with pytest.raises(
        InputError,
        match=r"method=grow holds its whole volume: \(12, 11, 13\) float16 may need "
        r"0.000567 GB, and decode.memory_gb is 0.0005; raise it, or use .*affinity_cc",
    ):
        whole.grow_volume(
            from_array(random_affinities(), "cxyz"),
            output,
            parameters=GROWN,
            memory_gb=0.0005,
        )
    with pytest.raises(InputError, match="method=mutex .* may need 0.000117 GB"):
        whole.mutex_volume(
            from_array(random_affinities(6), "cxyz"),
            output,
            parameters=MUTEX,
            memory_gb=0.0001,
        )


def test_bad_parameters_are_named():
    output = from_array(np.zeros(SHAPE, np.uint32), "xyz")

    def refused(message, channels=3, parameters=GROWN, **changed):
        decode = whole.mutex_volume if parameters is MUTEX else whole.grow_volume
        parameters = dataclasses.replace(parameters, **changed)
        affinities = from_array(random_affinities(channels), "cxyz")
        with pytest.raises(InputError, match=message):
            decode(affinities, output, parameters=parameters, memory_gb=1.0)

    refused("decode.min_seed is -1; wanted 0 or more", min_seed=-1)
    refused("decode.low_threshold is 0.9", low_threshold=0.9)
    refused("threshold nan came", threshold=float("nan"))
    refused(r"has 1 channel\(s\); wanted at least 3", channels=1)
    refused("3 channels for 3 offsets; wanted the long-", parameters=MUTEX)
