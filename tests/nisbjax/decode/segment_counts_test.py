"""Counts of segments: sums, decades, parts that are merged, and small ones dropped."""

import numpy as np
import pytest

from nisbjax.decode.segment_counts import SegmentCounts, without_small
from nisbjax.errors import InputError
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import create_zarr, open_volume


def counted(voxels, *sizes):
    counts = SegmentCounts(voxels)
    counts.add(np.array(sizes, np.int64))
    return counts


def test_sums_and_decades():
    # 1 and 9 are of the first decade, 10 and 99 of the second, 1000 of the fourth.
    counts = counted(2000, 1, 9, 10, 99, 1000)
    assert (counts.segments, counts.labelled, counts.largest) == (5, 1119, 1000)
    assert counts.by_decade == [2, 2, 0, 1]
    assert counts.attributes() == {
        "segments": 5,
        "background": 0.4405,  # 881 of 2000
        "largest_segment_voxels": 1000,
        "mean_segment_voxels": 223.8,
        "segments_by_decade_of_voxels": [2, 2, 0, 1],
    }
    assert str(counts) == "5 segments, 44.0 % background"  # 44.05, as printf rounds
    counts.add(np.array([100]))
    counts.add(np.empty(0, int))
    assert counts.by_decade == [2, 2, 1, 1]


@pytest.mark.parametrize("turned", [False, True])
def test_parts_merge_in_any_order(turned):
    parts = [counted(0, 5, 50), counted(0, 7000)]
    counts = SegmentCounts(9999)
    for part in parts[::-1] if turned else parts:
        counts.merge(part)
    assert counts == counted(9999, 5, 50, 7000)


def test_nothing_is_all_background():
    assert SegmentCounts(8).attributes()["background"] == 1
    assert SegmentCounts(0).attributes()["mean_segment_voxels"] == 0


def test_small_segments_are_dropped_and_the_others_close_up():
    labels = np.array([1, 1, 0, 2, 3, 3, 3, 4, 4], np.uint32).reshape(3, 1, 3)
    counts = without_small(labels, 2)
    assert labels.ravel().tolist() == [1, 1, 0, 0, 2, 2, 2, 3, 3]
    assert counts == counted(9, 2, 3, 2)
    before = labels.copy()
    without_small(labels, 0)
    assert labels.tolist() == before.tolist()
    assert without_small(np.empty((0, 2, 2), np.uint32), 5) == SegmentCounts(0)


def test_a_finished_manifest_holds_them(tmp_path):
    output = create_zarr(
        tmp_path / "labels.zarr",
        shape=(2, 2, 2),
        dtype=np.uint32,
        chunks=(2, 2, 2),
        axes="xyz",
    )
    counts = counted(8, 3)
    with Manifest(output.source, {"threshold": 0.5}) as manifest:
        manifest.finish(voxels=8, segments=1, labelled=3, largest=3, by_decade=[1])
        assert SegmentCounts.of_facts(manifest) == counts
        # Attributes that were lost are added again.
        assert SegmentCounts.of_finished(manifest, output) == counts
    assert open_volume(output.source).attributes["segments"] == 1


def test_another_last_line_is_refused(tmp_path):
    with Manifest(tmp_path / "labels.zarr", {}) as manifest:
        manifest.finish(voxels="many")
        with pytest.raises(InputError, match="has no statistics in its last line; rem"):
            SegmentCounts.of_facts(manifest)
