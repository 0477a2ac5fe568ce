"""The tuning curve: NERL, VOI, coverage and mergers over the threshold, in one figure.

Neither PyTC nor BANIS draws it; a best threshold without its curve hides whether it lies
at the edge of the grid, on a plateau, or trades coverage against mergers.
"""

import math
import os
from collections.abc import Mapping, Sequence

from nisbjax.store import figures


def draw(
    rows: Sequence[Mapping[str, float]],
    best: float,
    path: str | os.PathLike[str],
    *,
    connected: bool = True,
) -> None:
    """Writes the figure as PNG.

    Args:
      rows: one for each threshold, ascending: threshold, nerl, voi_split, voi_merge,
        voi_sum, coverage, coverage_length, n_non0_mergers, n_splits; nerl_mean and
        nerl_sd, but for trials of before these were kept.
      best: the chosen threshold.
      path: of the file.
      connected: by lines; not where trials differ in more than their threshold.
    """
    figure = figures.figure(figsize=(9, 6.5), layout="constrained")
    panels = {
        "NERL": {
            "nerl": "NERL, with its sd over skeletons",
            "nerl_mean": "mean over skeletons",
        },
        "skeleton VOI [bit]": {
            "voi_sum": "sum",
            "voi_split": "split",
            "voi_merge": "merge",
        },
        "share on background": {"coverage": "of nodes", "coverage_length": "of length"},
        "count": {
            "n_non0_mergers": "skeletons in shared segments",
            "n_splits": "split edges",
        },
    }
    thresholds = [row["threshold"] for row in rows]
    for axes, (label, series) in zip(
        figure.subplots(2, 2, sharex=True).flat, panels.items(), strict=True
    ):
        for name, legend in series.items():
            values = [row.get(name, math.nan) for row in rows]
            axes.plot(
                thresholds,
                values,
                marker="o",
                markersize=4,
                linestyle="-" if connected else "",
                label=legend,
            )
            if name == "nerl":
                spread = [row.get("nerl_sd", math.nan) for row in rows]
                axes.errorbar(thresholds, values, spread, fmt="none", elinewidth=1)
        axes.axvline(best, color="0.5", linestyle=":", linewidth=1)
        axes.set_ylabel(label)
        axes.set_xlabel("threshold")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    top = max(rows, key=lambda row: row["nerl"])
    figure.suptitle(
        f"best threshold {best:g}: NERL {top['nerl']:.4f}, "
        f"{100 * top['coverage']:.1f} % of nodes on background"
    )
    figures.save(figure, path, dpi=120)
