"""The tuning curve: what a study's trials score over a parameter, in one figure.

Neither PyTC nor BANIS draws it; a best value without its curve hides whether it lies
at the edge of the grid, on a plateau, or trades coverage against mergers.
"""

import math
import os
from collections.abc import Mapping, Sequence

from nisbjax.store import figures

_VOI = {"voi_sum": "sum", "voi_split": "split", "voi_merge": "merge"}
# By the label of a panel: the scores in it, and what they are called there.
_OF_SKELETONS = {
    "NERL": {
        "nerl": "NERL, with its sd over skeletons",
        "nerl_mean": "mean over skeletons",
    },
    "skeleton VOI [bit]": _VOI,
    "share on background": {"coverage": "of nodes", "coverage_length": "of length"},
    "count": {
        "n_non0_mergers": "skeletons in shared segments",
        "n_splits": "split edges",
    },
}
_OF_LABELS = {
    "adapted Rand": {
        "adapted_rand_error": "error",
        "adapted_rand_precision": "precision",
        "adapted_rand_recall": "recall",
    },
    "VOI against dense labels [bit]": _VOI,
}


def draw(
    rows: Sequence[Mapping[str, float]],
    chosen: Mapping[str, float],
    tuned: Sequence[str],
    path: str | os.PathLike[str],
) -> None:
    """Writes the figure as PNG.

    Args:
      rows: one for each trial, ascending: its parameters, voi_split, voi_merge, voi_sum,
        and of skeletons nerl, coverage, coverage_length, n_non0_mergers, n_splits,
        nerl_mean and nerl_sd, but for trials of before these were kept; of dense labels
        adapted_rand_error, adapted_rand_precision, adapted_rand_recall.
      chosen: the row whose parameters are taken.
      tuned: names of the parameters. The scores are drawn over the first of those that
        were tried at most values, and connected by lines where there is one.
      path: of the file.
    """
    over = max(tuned, key=lambda name: len({row[name] for row in rows}))
    panels = _OF_SKELETONS if "nerl" in chosen else _OF_LABELS
    down = len(panels) // 2
    figure = figures.figure(figsize=(9, 0.25 + 3.125 * down), layout="constrained")
    tried = [row[over] for row in rows]
    for axes, (label, series) in zip(
        figure.subplots(down, 2, sharex=True).flat, panels.items(), strict=True
    ):
        for name, legend in series.items():
            values = [row.get(name, math.nan) for row in rows]
            axes.plot(
                tried,
                values,
                marker="o",
                markersize=4,
                linestyle="-" if len(tuned) == 1 else "",
                label=legend,
            )
            if name == "nerl":
                spread = [row.get("nerl_sd", math.nan) for row in rows]
                axes.errorbar(tried, values, spread, fmt="none", elinewidth=1)
        axes.axvline(chosen[over], color="0.5", linestyle=":", linewidth=1)
        axes.set_ylabel(label)
        axes.set_xlabel(over)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    point = ", ".join(f"{name} {chosen[name]:g}" for name in tuned)
    figure.suptitle(f"{point}: {_said(chosen)}")
    figures.save(figure, path, dpi=120)


def _said(chosen: Mapping[str, float]) -> str:
    """The scores of the chosen row, for the title."""
    if "nerl" not in chosen:
        return (
            f"adapted Rand error {chosen['adapted_rand_error']:.4f}, "
            f"VOI {chosen['voi_sum']:.3f}"
        )
    mean = ""
    if "nerl_mean" in chosen:
        mean = f"mean over skeletons {chosen['nerl_mean']:.4f}, "
    return (
        f"NERL {chosen['nerl']:.4f}, {mean}"
        f"{100 * chosen['coverage']:.1f} % of nodes on background"
    )
