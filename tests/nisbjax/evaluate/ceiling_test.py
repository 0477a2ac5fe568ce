"""What the truth's own labels score, worked by hand."""

import numpy as np
import pytest
from line_skeletons import lines

from nisbjax.decode import label_components
from nisbjax.evaluate.ceiling import ceiling
from nisbjax.store.volume import from_array


def components(labels, positions):
    return label_components.at_nodes(labels, positions, memory_gb=1.0)


def segmentation(length, **attributes):
    return from_array(np.ones((length, 1, 1), np.uint32), "xyz", attributes)


@pytest.fixture
def labels(tmp_path):
    """Nodes 0-4 are skeleton 1, cut at x = 2 by background; 5-7 are skeleton 2."""
    path = tmp_path / "labels.npy"
    np.save(path, np.array([1, 1, 0, 1, 1, 2, 2, 2], np.uint8).reshape(8, 1, 1))
    return str(path)


def test_the_components_of_the_labels_are_scored(labels):
    """Skeleton 1 has 40 nm and keeps 10 and 10, skeleton 2 has 20 and keeps all."""
    found, reason = ceiling(lines(5, 3), labels, segmentation(8), components)
    assert reason == ""
    assert found["nerl_ceiling"] == pytest.approx((200 + 400) / (1600 + 400))
    assert found["nerl_mean_ceiling"] == pytest.approx((200 / 1600 + 1) / 2)


def test_of_a_region_its_part_of_the_labels(labels):
    """x 3..7 holds two nodes of skeleton 1, and skeleton 2: both are whole there."""
    part = segmentation(5, box="3:8,0:1,0:1", volume_shape=[8, 1, 1])
    found, _ = ceiling(lines(2, 3), labels, part, components)
    assert found == {"nerl_ceiling": 1.0, "nerl_mean_ceiling": 1.0}


def test_without_labels_of_the_volume_there_is_a_reason(labels, tmp_path):
    for dense in ("", str(tmp_path / "nowhere.npy")):
        found, reason = ceiling(lines(5, 3), dense, segmentation(8), components)
        assert not found and "no dense labels of the volume are there" in reason
    found, reason = ceiling(lines(5, 3), labels, segmentation(9), components)
    assert not found
    assert reason.endswith("has shape (8, 1, 1), and the volume (9, 1, 1)")
