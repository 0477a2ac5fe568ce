"""Scores of points by dense labels, against figures worked out by hand."""

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.evaluate.truth import Truth
from nisbjax.store.volume import from_array
from nisbjax.tune import study
from nisbjax.tune.database import MADE_FROM
from nisbjax.tune.inputs import Inputs
from nisbjax.tune.label_scorer import LabelScorer

LABELS = np.array([1, 1, 1, 1, 2, 2, 2, 2], np.uint8).reshape(8, 1, 1)
# By threshold. Of 8 voxels in labels of 4 and 4, sum of squares 32:
# - all in one: shared 16 + 16 of 64 in segments, precision 1/2, recall 1, error 1 - 2/3;
#   each voxel's label is one bit that the segment does not tell
# - as they are: 0, 0
# - the first in halves: shared 4 + 4 + 16 of 32 in labels, recall 3/4, precision 1, error
#   1 - (3/2) / (7/4); half of the voxels have one bit more than their label tells
DECODED = {
    0.5: [1, 1, 1, 1, 1, 1, 1, 1],
    0.6: [5, 5, 5, 5, 9, 9, 9, 9],
    0.7: [1, 1, 2, 2, 3, 3, 3, 3],
}
RAND = {0.5: 1 / 3, 0.6: 0.0, 0.7: 1 / 7}
VOI = {0.5: (0.0, 1.0), 0.6: (0.0, 0.0), 0.7: (0.5, 0.0)}  # split, merge


@pytest.fixture
def scorer(tmp_path):
    np.save(tmp_path / "labels.npy", LABELS)
    inputs = Inputs("", Truth("", str(tmp_path / "labels.npy"), (9.0, 9.0, 9.0)), {})

    def decode(point):
        # One name for all of them, as the mode has it: the last one alone is kept.
        found = np.array(DECODED[point["threshold"]], np.uint32).reshape(8, 1, 1)
        np.save(tmp_path / "trial.npy", found)
        return tmp_path / "trial.npy"

    affinities = from_array(np.zeros((3, 8, 1, 1), np.float32), "cxyz")
    return LabelScorer(inputs, affinities, 1.0, decode)


def test_scores_by_hand(scorer):
    for threshold, error in RAND.items():
        found = scorer.score_of({"threshold": threshold})
        assert found["adapted_rand_error"] == pytest.approx(error)
        split, merge = VOI[threshold]
        assert found["voi_split"] == pytest.approx(split)
        assert found["voi_merge"] == pytest.approx(merge)


@pytest.mark.parametrize(
    "metric, values",
    [("adapted_rand", [-1 / 3, 0, -1 / 7]), ("voi", [-1, 0, -0.5])],
)
def test_a_study_takes_the_lowest_error(opened, scorer, metric, values):
    opened.set_user_attr(MADE_FROM, {"metric": metric, "label": "ab"})
    study.run_grid(opened, tuple(DECODED), scorer.segments, scorer.score)
    assert [t.value for t in opened.trials] == pytest.approx(values)
    # A gain is no luck of a few skeletons: the configured .7 is not kept.
    top, kept = study.choose(opened, {"threshold": 0.7})
    assert (top.params, kept) == ({"threshold": 0.6}, "")
    assert top.user_attrs["adapted_rand_precision"] == 1


def test_how_long_it_takes_is_said_once(scorer, caplog):
    caplog.set_level("INFO")
    for _ in scorer.segments([0.5, {"threshold": 0.6}, 0.7]):
        pass
    (line,) = (m for m in caplog.messages if "whole decode" in m)
    assert line == "each trial is a whole decode, of 0.0 s, so 2 more take about 0 s"


def test_without_a_whole_decode(tmp_path):
    inputs = Inputs("", Truth("", str(tmp_path / "labels.npy"), (9.0, 9.0, 9.0)), {})
    affinities = from_array(np.zeros((3, 8, 1, 1), np.float32), "cxyz")
    with pytest.raises(
        InputError, match="dense labels needs a whole decode for each t"
    ):
        LabelScorer(inputs, affinities, 1.0, None)
