"""The tuning curve: NERL, VOI, coverage and mergers over a parameter, in one figure.

Neither PyTC nor BANIS draws it; a best value without its curve hides whether it lies
at the edge of the grid, on a plateau, or trades coverage against mergers.
"""

import math
import os
from collections.abc import Mapping, Sequence

from nisbjax.store import figures


def draw(
    rows: Sequence[Mapping[str, float]],
    chosen: Mapping[str, float],
    tuned: Sequence[str],
    path: str | os.PathLike[str],
) -> None:
    """Writes the figure as PNG.

    Args:
      rows: one for each trial, ascending: its parameters, nerl, voi_split, voi_merge,
        voi_sum, coverage, coverage_length, n_non0_mergers, n_splits; nerl_mean and
        nerl_sd, but for trials of before these were kept.
      chosen: the row whose parameters are taken.
      tuned: names of the parameters. The scores are drawn over the first of those that
        were tried at most values, and connected by lines where there is one.
      path: of the file.
    """
    over = max(tuned, key=lambda name: len({row[name] for row in rows}))
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
    tried = [row[over] for row in rows]
    for axes, (label, series) in zip(
        figure.subplots(2, 2, sharex=True).flat, panels.items(), strict=True
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
    mean = ""
    if "nerl_mean" in chosen:
        mean = f"mean over skeletons {chosen['nerl_mean']:.4f}, "
    figure.suptitle(
        f"{point}: NERL {chosen['nerl']:.4f}, {mean}"
        f"{100 * chosen['coverage']:.1f} % of nodes on background"
    )
    figures.save(figure, path, dpi=120)
