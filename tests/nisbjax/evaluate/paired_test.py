"""Two segmentations at the nodes of the same skeletons, worked by hand."""

import numpy as np
import pytest
from line_skeletons import lines

from nisbjax.evaluate import nerl, paired


def test_the_example_of_the_docstring():
    found = paired.compare(lines(2, 2), np.array([5, 0, 6, 6]), np.array([5, 5, 5, 5]))
    assert found.first.tolist() == [0, 1] and found.second.tolist() == [0, 0]
    facts = found.facts()
    assert (facts["n_better"], facts["n_worse"], facts["n_skeletons"]) == (0, 1, 2)
    assert found.background == {
        "n_background": 1, "n_own": 1, "n_other": 0, "n_none": 0
    }  # fmt: skip
    assert facts["nerl_difference"] == facts["nerl_mean_difference"] == -0.5
    # Resampled: both draws the first 0, both the second -1, else -.5.
    assert facts["nerl_interval"] == [-1, 0]


def test_difference_is_that_of_the_scores_and_nodes_are_counted():
    """Skeletons of 3, 4 and 2 nodes; the second segmentation gives six nodes of the
    background: three of skeleton 1 to 7, which is its own, two of skeleton 2 to 8, and
    one of skeleton 3 to 8, another's."""
    truth = lines(3, 4, 2)
    first = np.array([0, 0, 0, 0, 0, 9, 9, 0, 0])
    second = np.array([7, 7, 7, 8, 8, 8, 8, 8, 0])
    found = paired.compare(truth, first, second)
    assert found.background == {
        "n_background": 7, "n_own": 5, "n_other": 1, "n_none": 1
    }  # fmt: skip
    facts = found.facts()
    for key in ("nerl", "nerl_mean"):
        scores = [nerl.score(truth, s)[key] for s in (first, second)]
        assert facts[f"{key}_difference"] == pytest.approx(scores[1] - scores[0])
    said = paired.text(facts, "a", "b")
    assert "3 skeletons: 1 better in the second, 1 worse" in said
    assert "7 nodes that the first left on background: the second gave 85.7 %" in said
    assert "of those 16.7 % another skeleton's" in said


def test_nothing_on_background_and_nothing_changed():
    facts = paired.compare(lines(2), np.array([3, 3]), np.array([3, 3])).facts()
    assert facts["n_better"] == facts["n_worse"] == facts["n_background"] == 0
    assert paired.text(facts, "a", "b").endswith(
        "0 nodes that the first left on background\n"
    )
