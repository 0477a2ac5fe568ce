"""Scores in columns, a row for each decoder, trial or truth that was scored against.

PyTC prints one score a line; beside one another they can be compared.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# By key of a score: what its column is called, and how it is written.
COLUMNS = {
    "nerl": ("NERL", "{:.3f}"),
    "nerl_mean": ("mean", "{:.3f}"),
    "adapted_rand_error": ("Rand error", "{:.3f}"),
    "voi_sum": ("VOI", "{:.2f}"),
    "voi_split": ("split", "{:.2f}"),
    "voi_merge": ("merge", "{:.2f}"),
    "n_non0_mergers": ("mergers", "{:d}"),
    "n_splits": ("splits", "{:d}"),
    "coverage": ("on bg", "{:.1%}"),
    "threshold": ("threshold", "{:.3f}"),
}
OF_SKELETONS = tuple(key for key in COLUMNS if key != "adapted_rand_error")
_LEAST = 10  # letters of the first column


def text(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    columns: Sequence[str] = (),
    *,
    first: Mapping[str, str] | None = None,
) -> str:
    """The rows' scores in columns, not wider than they need to be.

    Args:
      title: above the rows' names.
      rows: scores by the name of their row.
      columns: keys of scores; those that a row has where empty.
      first: what all rows have in common before their scores, by the names of its columns.
    """
    first = first or {}
    shown = columns or [
        k for k in COLUMNS if any(row.get(k) is not None for row in rows.values())
    ]
    shown = [key for key in shown if key not in first]
    cells = [[title, *first, *(COLUMNS[key][0] for key in shown)]]
    for name, row in rows.items():
        found = (
            COLUMNS[key][1].format(row[key] + 0) if row.get(key) is not None else "-"
            for key in shown
        )
        cells.append([name, *first.values(), *found])
    return aligned(cells)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Rows of cells below one another: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(widths[0], _LEAST)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
