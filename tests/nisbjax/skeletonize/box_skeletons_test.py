"""Skeletons of one box, by kimimaro: nodes inside their labels, along their axes."""

import importlib.util
import sys

import numpy as np
import pytest
from small_labels import VOXEL, fork, rod, two_touching

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.skeletonize import box_skeletons
from nisbjax.skeletonize.box_skeletons import BoxSkeletonizer, Teasar, trace
from nisbjax.skeletonize.boxes import SharedBox
from nisbjax.store.volume import from_array

pytest.importorskip("kimimaro")
TEASAR = Teasar(1.5, 50.0)


def traced(labels, start=(0, 0, 0)):
    box = Box.whole(labels.shape).shift(start)
    return trace(labels, box, TEASAR, VOXEL)


def test_a_rod_has_its_axis():
    node_id, index, radius, edges = traced(rod())
    assert set(node_id.tolist()) == {7}
    # from face to face along y = z = 4, a voxel at each x
    assert sorted(index.tolist()) == [[x, 4, 4] for x in range(40)]
    assert len(edges) == 39
    # two voxels to each side, and the distance to the centre of the first outside is 30
    assert np.median(radius) == 30


def test_a_fork_has_three_ends_and_one_branch():
    _, index, _, edges = traced(fork())
    degree = np.bincount(edges.ravel())
    assert (degree == 1).sum() == 3 and (degree == 3).sum() == 1
    # the branch is where the stem meets the cross-piece
    assert np.abs(index[degree == 3][0] - [20, 15, 4]).max() <= 3


def test_labels_that_touch_stay_apart_and_nodes_stay_inside():
    labels = two_touching()
    node_id, index, _, edges = traced(labels, (100, 0, 7))
    where = index - (100, 0, 7)
    assert (labels[tuple(where.T)] == node_id).all()
    assert (node_id[edges[:, 0]] == node_id[edges[:, 1]]).all()
    assert set(node_id.tolist()) == {3, 5}


def test_a_box_counts_what_it_owns_and_leaves_out_what_is_unlabeled():
    labels = two_touching()
    labels[:, :, 2] = 77
    box = SharedBox(Box.whole(labels.shape), Box((0, 0, 0), (47, 14, 9)))
    work = BoxSkeletonizer(from_array(labels, "xyz"), TEASAR, VOXEL, "77")
    found = work(box)
    # 47 of 48 planes, 5 voxels in y, 4 in z
    assert found.label.tolist() == [3, 5] and found.voxels.tolist() == [940, 940]
    assert set(found.node_id.tolist()) == {3, 5}


def test_nothing_but_background():
    node_id, index, radius, edges = traced(np.zeros((3, 3, 3), np.uint8))
    assert index.shape == (0, 3) and edges.shape == (0, 2)
    assert len(node_id) == len(radius) == 0


def test_a_label_of_64_bits():
    labels = np.full((3, 3, 3), (1 << 63) + 5, np.uint64)
    box = Box.whole(labels.shape)
    work = BoxSkeletonizer(from_array(labels, "xyz"), TEASAR, VOXEL, "default")
    with pytest.raises(
        InputError, match="holds the label 9223372036854775813, which doe"
    ):
        work(SharedBox(box, box))


def test_without_kimimaro(monkeypatch):
    monkeypatch.setitem(sys.modules, "kimimaro", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'nisbjax\[skeletons\]'"):
        box_skeletons.require_installed()
