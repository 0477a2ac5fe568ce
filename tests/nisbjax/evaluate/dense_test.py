"""Dense scores on toy tables, with their arithmetic, and against scikit-image."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import metrics

from nisbjax.errors import InputError
from nisbjax.evaluate import dense
from nisbjax.store import volume


def line(values, dtype=np.uint32) -> np.ndarray:
    return np.array(values, dtype).reshape(-1, 1, 1)


def table(truth, segmentation) -> dense.Contingency:
    return dense.contingency(line(truth), line(segmentation))


def test_adapted_rand_by_hand():
    # truth 1 1 1 1 2 2 0 0, segments 5 5 6 0 6 6 6 0; n = 8
    # pairs of truth > 0: (1,5) 2, (1,6) 1, (1,0) 1, (2,6) 2
    # a = (4, 2): sum of squares 20; b over segments > 0: 5 -> 2, 6 -> 3: 13
    # c = 1 voxel on background: c / n = 0.125
    # joint = 4 + 1 + 4 + 0.125 = 9.125; precision 9.125 / 13.125; recall 9.125 / 20
    result = dense.adapted_rand(
        table([1, 1, 1, 1, 2, 2, 0, 0], [5, 5, 6, 0, 6, 6, 6, 0])
    )
    precision, recall = 9.125 / 13.125, 9.125 / 20
    assert result["adapted_rand_precision"] == pytest.approx(precision)
    assert result["adapted_rand_recall"] == pytest.approx(recall)
    assert result["adapted_rand_error"] == pytest.approx(
        1 - 2 * precision * recall / (precision + recall)
    )


def test_voi_by_hand():
    # truth 1 1 1 1 (one object), halves 5 5 | 6 6: one bit to say which half
    assert dense.voi(table([1, 1, 1, 1], [5, 5, 6, 6])) == pytest.approx(
        {"voi_split": 1.0, "voi_merge": 0.0, "voi_sum": 1.0}
    )
    # two objects of 2 in one segment, the voxel of label 0 ignored
    assert dense.voi(table([1, 1, 2, 2, 0], [5, 5, 5, 5, 9])) == pytest.approx(
        {"voi_split": 0.0, "voi_merge": 1.0, "voi_sum": 1.0}
    )


def test_instance_accuracy_by_hand():
    # label 1 (4 voxels) and segment 5 (3 of them): IoU 3/4. Label 2 (2) and segment 6
    # (2 + 1 of label 1): IoU 2/3. Label 3 (1) missed; segment 8 on background false.
    truth = [1, 1, 1, 1, 2, 2, 3, 0]
    found = [5, 5, 5, 6, 6, 6, 0, 8]
    result = dense.instance_accuracy(table(truth, found))
    # tp 2, fn 1, fp 1
    assert result["instance_accuracy"] == pytest.approx(2 / 4)
    assert result["instance_precision"] == pytest.approx(2 / 3)
    assert result["instance_recall"] == pytest.approx(2 / 3)
    assert result["instance_f1"] == pytest.approx(2 / 3)


def test_two_halves_of_one_label_match_once():
    # both halves have an IoU of exactly 0.5 with label 1
    result = dense.instance_accuracy(table([1, 1], [5, 6]))
    assert result["instance_accuracy"] == pytest.approx(1 / 2)


ids = st.lists(st.integers(0, 4), min_size=30, max_size=30)


@given(ids, st.lists(st.integers(1, 5), min_size=30, max_size=30))
def test_equals_scikit_image_where_nothing_is_background(truth, found):
    truth[0] = 3
    kept = np.array(truth) != 0
    joint, a, b = pair_sums(np.array(truth)[kept], np.array(found)[kept])
    result = dense.adapted_rand(table(truth, found))
    assert result["adapted_rand_precision"] == pytest.approx(joint / b)
    assert result["adapted_rand_recall"] == pytest.approx(joint / a)
    # scikit-image leaves out the pairs of a voxel with itself
    n = kept.sum()
    if joint > n:
        error, _, _ = metrics.adapted_rand_error(
            line(truth), line(found), ignore_labels=(0,)
        )
        assert error == pytest.approx(1 - 2 * (joint - n) / (a + b - 2 * n))
    split, merge = metrics.variation_of_information(
        line(truth), line(found), ignore_labels=(0,)
    )
    # scikit-image names them H(truth | found), H(found | truth)
    voi = dense.voi(table(truth, found))
    assert voi["voi_sum"] == pytest.approx(split + merge, abs=1e-9)


def pair_sums(truth, found):
    """Pairs of voxels (i, j), equal in both, in truth, in the segmentation."""
    same_truth = truth[:, None] == truth[None]
    same_found = found[:, None] == found[None]
    return (same_truth & same_found).sum(), same_truth.sum(), same_found.sum()


@given(ids, ids)
def test_voi_equals_conditional_entropies(truth, found):
    truth[0] = 1
    pairs = [(t, f) for t, f in zip(truth, found, strict=True) if t]
    split = -sum(
        math.log2(sum(q == (t, f) for q in pairs) / sum(q[0] == t for q in pairs))
        for t, f in pairs
    )
    assert dense.voi(table(truth, found))["voi_split"] == pytest.approx(
        split / len(pairs), abs=1e-9
    )


@given(st.integers(0, 20))
def test_box_by_box_equals_whole(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (7, 6, 5)).astype(np.uint16)
    # ids beyond 2^63, which no float or int64 holds
    found = rng.integers(0, 3, (7, 6, 5)).astype(np.uint64) + np.uint64(2**63 + 1)
    whole = dense.contingency(truth, found)
    boxed = dense.contingency_of_volumes(
        volume.from_array(truth, "xyz"),
        volume.from_array(found, "xyz"),
        memory_gb=8 * 48 * 30 / 2**30,
        workers=2,
    )
    for name in ("truth", "segment", "voxels"):
        assert np.array_equal(getattr(whole, name), getattr(boxed, name))
    assert whole.segment.dtype == np.uint64


def test_shapes_that_differ():
    a, b = (volume.from_array(np.ones((n, 2, 2), np.uint8), "xyz") for n in (3, 4))
    with pytest.raises(InputError, match=r"shape \(3, 2, 2\), the segmentation memory"):
        dense.contingency_of_volumes(a, b)


@pytest.mark.parametrize(
    "metric", [dense.adapted_rand, dense.voi, dense.instance_accuracy]
)
def test_labels_of_0_alone(metric):
    with pytest.raises(InputError, match="dense labels are 0 everywhere"):
        metric(table([0, 0], [1, 2]))


@pytest.mark.parametrize("code", [-1, -3, 2**64 - 1, 2**64 - 3, 2**32 - 1])
def test_unlabeled_truth_is_left_out(code):
    # Label 1 in segment 5, 2 in 6: right. What lies behind is nobody's.
    dtype = np.int32 if code < 0 else np.uint64 if code > 2**32 else np.uint32
    found = line([5, 5, 6, 6, 7, 8])
    counted = dense.contingency(line([1, 1, 2, 2, code, code], dtype), found)
    assert counted.voxels.tolist() == [2, 2]
    assert dense.voi(counted)["voi_sum"] == 0
    named = dense.contingency(line([1, 1, 2, 2, 9, 9]), found, "9")
    assert named.voxels.tolist() == [2, 2]
    with pytest.raises(InputError, match="label"):
        dense.voi(dense.contingency(line([code] * 6, dtype), found))
