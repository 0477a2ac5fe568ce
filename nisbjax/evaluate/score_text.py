"""The evaluation as text, in the form of PyTC's `eval_*.txt`.

Sections and labels are the reference's, so that its readers find their lines; skeleton
VOI, mergers and splits are added, and every line that shows a NERL says how much of the
skeletons lies on background, without which a NERL cannot be judged.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nisbjax.typing import DecodeValues

RULE = "=" * 80
THIN = "-" * 80

_NERL_NAMES = {
    "nerl_5": "NERL, mergers <= 5 ignored",
    "nerl_20": "NERL, mergers <= 20 ignored",
    "nerl_100": "NERL, mergers <= 100 ignored",
    "nerl_inf": "NERL, all mergers ignored",
    "nerl_em_erl_50": "NERL em_erl 50 (no board)",
}
# Of the scores against dense labels, those that a log line has room for.
_DENSE = {
    "adapted_rand_error": "adapted Rand error",
    "voi_sum": "VOI",
    "instance_accuracy": "instance accuracy",
}
# What judges a NERL: its spread, and how high it could be.
_TRUST_NAMES = {
    "nerl_sd": "Sd over skeletons",
    "nerl_mean": "Mean over skeletons",
    "nerl_share": "Largest skeleton's share",
    "nerl_ceiling": "Ceiling (the truth)",
    "nerl_mean_ceiling": "  Its mean over skeletons",
    "nerl_oracle_fill": "Oracle: background filled",
    "nerl_oracle_merge": "Oracle: splits joined",
    "nerl_oracle_both": "Oracle: both",
}


def coverage(score: Mapping[str, float]) -> str:
    """`on background: 27.0 % of nodes, 29.4 % of length`."""
    return (
        f"on background: {100 * score['coverage']:.1f} % of nodes, "
        f"{100 * score['coverage_length']:.1f} % of length"
    )


def parameters(found: DecodeValues) -> str:
    """Parameters of a decoder in a sentence: `anchor 20, joins average+absorb`."""
    return ", ".join(f"{name} {parameter(value)}" for name, value in found.items())


def parameter(value: Any) -> str:
    """One of them: a number, or words as `average+absorb`."""
    return f"{value:g}" if isinstance(value, int | float) else "+".join(value)


def summary(score: Mapping[str, float]) -> str:
    """One line for a log: NERL with its coverage and spread, and VOI.

    Scores of studies that were begun before there was a spread go without it, those against
    dense labels without what skeletons say.
    """
    if "nerl" not in score:
        found = (f"{name} {score[k]:.3f}" for k, name in _DENSE.items() if k in score)
        return ", ".join(found)
    spread = mean = ""
    if "nerl_sd" in score:
        spread = f" +- {score['nerl_sd']:.2f}"
        mean = f"mean {score['nerl_mean']:.3f}, "
    return (
        f"NERL {score['nerl']:.3f}{spread} ({100 * score['coverage']:.1f} % on "
        f"background), {mean}VOI {score['voi_sum']:.2f}"
    )


def title(name: str, facts: Mapping[str, Any]) -> str:
    """A picture's title: its name, and below it the scores of an evaluation.

    Args:
      name: of what is shown.
      facts: `skeletons` and `dense`, as the evaluation's JSON has them.
    """
    lines = [name]
    if facts.get("skeletons"):
        score = facts["skeletons"]
        lines.append(f"NERL {score['nerl']:.3f}, VOI {score['voi_sum']:.2f}")
    if facts.get("dense"):
        lines.append(summary(facts["dense"]))
    return "\n".join(lines)


def text(
    *,
    timestamp: str,
    volume: str,
    skeleton_score: Mapping[str, float] | None,
    dense_score: Mapping[str, float] | None,
    files: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """The report; sections appear where there is something to say.

    Args:
      timestamp: when, `YYYYmmdd_HHMMSS`.
      volume: name of the volume.
      skeleton_score: of `nerl.score`.
      dense_score: of the functions in `dense`, together.
      files: label and path of what else was written, and of the inputs.
      notes: lines at the end (the threshold's origin, published figures, warnings).
    """
    lines = [RULE, "EVALUATION METRICS", RULE]
    lines += [f"Timestamp: {timestamp}", f"Volume: {volume}", RULE, ""]
    if dense_score:
        lines += ["Instance Segmentation Metrics:", THIN, *_dense(dense_score), ""]
    if skeleton_score:
        lines += ["Neurite ERL Metrics:", THIN, *_skeletons(skeleton_score)]
        lines += [_row(label, path) for label, path in files.items()] + [""]
    if notes:
        lines += ["Notes:", THIN, *(f"  {note}" for note in notes), ""]
    return "\n".join([*lines, RULE, ""])


def _row(label: str, value: Any) -> str:
    value = f"{value:.6f}" if isinstance(value, float) else value
    return f"  {label + ':':<29} {value}"


def _dense(score: Mapping[str, float]) -> list[str]:
    names = {
        "adapted_rand_error": "Adapted Rand Error",
        "adapted_rand_precision": "Adapted Rand Precision",
        "adapted_rand_recall": "Adapted Rand Recall",
        "voi_split": "VOI Split",
        "voi_merge": "VOI Merge",
        "voi_sum": "VOI Total",
        "instance_accuracy": "Instance Accuracy",
        "instance_precision": "  Precision",
        "instance_recall": "  Recall",
        "instance_f1": "  F1",
    }
    return [_row(label, score[key]) for key, label in names.items() if key in score]


def _skeletons(score: Mapping[str, float]) -> list[str]:
    covered = coverage(score)
    lines = [_row("NERL", f"{score['nerl']:.6f}  ({covered})")]
    lines += [
        _row(label, f"{score[key]:.6f}  ({covered})")
        for key, label in _NERL_NAMES.items()
    ]
    lines += [
        _row(label, score[key]) for key, label in _TRUST_NAMES.items() if key in score
    ]
    return [
        *lines,
        _row("Pred ERL", f"{score['erl']:.6f} nm"),
        _row("GT ERL", f"{score['max_erl']:.6f} nm"),
        _row("Skeleton VOI Split", score["voi_split"]),
        _row("Skeleton VOI Merge", score["voi_merge"]),
        _row("Skeleton VOI Total", score["voi_sum"]),
        _row("Mergers", score["n_mergers"]),
        _row("Mergers off background", score["n_non0_mergers"]),
        _row("Split edges", score["n_splits"]),
        _row("Segments at nodes", score["n_segments"]),
        _row("Skeletons", score["n_skeletons"]),
    ]
