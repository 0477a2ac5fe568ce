"""The report as text: the reference's lines, each NERL with its coverage, and the log line."""

from nisbjax.evaluate import score_text

SCORE = {"nerl": 0.25, "coverage": 0.27, "coverage_length": 0.294, "voi_sum": 3.0}
SCORE |= {"nerl_sd": 0.061, "nerl_mean": 0.31}
SCORE |= {"voi_split": 1.0, "voi_merge": 2.0, "n_non0_mergers": 3, "n_splits": 7}


def test_a_score_in_one_line():
    assert score_text.summary(SCORE) == (
        "NERL 0.250 +- 0.06 (27.0 % on background), mean 0.310, VOI 3.00"
    )


def test_a_score_of_before_there_was_a_spread():
    old = {k: v for k, v in SCORE.items() if k not in ("nerl_sd", "nerl_mean")}
    assert score_text.summary(old) == "NERL 0.250 (27.0 % on background), VOI 3.00"


def test_a_score_against_dense_labels_in_one_line():
    rand = {"adapted_rand_error": 0.25, "adapted_rand_precision": 0.6}
    rand["adapted_rand_recall"] = 1.0
    voi = {"voi_sum": 3.0, "voi_split": 1.0, "voi_merge": 2.0}
    assert score_text.summary(rand | voi) == ("adapted Rand error 0.250, VOI 3.000")
    assert score_text.summary({"instance_accuracy": 0.5}) == "instance accuracy 0.500"


def test_a_pictures_title_has_the_scores_below_it():
    facts = {"skeletons": SCORE, "dense": {"adapted_rand_error": 0.25}}
    assert score_text.title("segmentation", facts).split("\n") == [
        "segmentation",
        "NERL 0.250, VOI 3.00",
        "adapted Rand error 0.250",
    ]
    assert score_text.title("segmentation", {}) == "segmentation"


def test_sections_appear_where_there_is_something_to_say():
    parts = {"timestamp": "20260101_120000", "volume": "seed101", "files": {}}
    dense = {"voi_sum": 3.0, "adapted_rand_error": 0.1}
    text = score_text.text(**parts, skeleton_score=None, dense_score=dense)
    assert "Neurite" not in text and "Notes" not in text
    # in the reference's order, whatever theirs is
    assert text.index("Adapted Rand Error") < text.index("VOI Total")
    text = score_text.text(
        **parts, skeleton_score=None, dense_score=None, notes=["threshold: 0.7"]
    )
    assert "Instance" not in text and "  threshold: 0.7\n" in text


def test_the_report_has_the_references_form():
    """Every line of PyTC's file, label and column; ours stand between them."""
    score: dict[str, float] = dict.fromkeys(
        [
            "voi_split",
            "voi_merge",
            "voi_sum",
            "nerl_5",
            "nerl_20",
            "nerl_100",
            "nerl_inf",
        ],
        0.5,
    )
    score |= {"nerl": 0.25, "erl": 14167.7, "max_erl": 56670.8, "nerl_em_erl_50": 0.3}
    score |= {"coverage": 0.27, "coverage_length": 0.3, "n_skeletons": 416}
    score |= dict.fromkeys(["n_mergers", "n_non0_mergers", "n_splits", "n_segments"], 2)
    text = score_text.text(
        timestamp="20260101_120000",
        volume="seed101",
        skeleton_score=score,
        dense_score={
            "adapted_rand_error": 0.1,
            "voi_split": 1.0,
            "voi_merge": 2.0,
            "voi_sum": 3.0,
            "instance_accuracy": 0.4,
        },
        files={"Graph": "skeleton.pkl", "Per-GT ERL File": "a_nerl_per_gt_erl.npz"},
    )
    reference = """\
================================================================================
EVALUATION METRICS
================================================================================
Timestamp: 20260101_120000
Volume: seed101
================================================================================

Instance Segmentation Metrics:
--------------------------------------------------------------------------------
  Adapted Rand Error:           0.100000
  VOI Split:                    1.000000
  VOI Merge:                    2.000000
  VOI Total:                    3.000000
  Instance Accuracy:            0.400000

Neurite ERL Metrics:
--------------------------------------------------------------------------------
  NERL:                         0.250000
  Pred ERL:                     14167.700000
  GT ERL:                       56670.800000
  Skeletons:                    416
  Graph:                        skeleton.pkl
  Per-GT ERL File:              a_nerl_per_gt_erl.npz

================================================================================
"""
    rest = iter(text.splitlines())
    for line in reference.splitlines():
        # ours may add a unit or the coverage behind a value
        assert any(line == own or own.startswith(line + " ") for own in rest), line
