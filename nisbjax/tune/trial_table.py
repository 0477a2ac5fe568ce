"""The trials of a study as a table: the best of them, the default and the chosen one.

PyTC leaves them in a database, which another program shows.
"""

from collections.abc import Mapping, Sequence

from nisbjax.evaluate import score_table
from nisbjax.tune.grid_search import SAME
from nisbjax.tune.objective import value_of
from nisbjax.tune.trials import Point
from nisbjax.typing import DecodeValues

_MOST = 10
_SHOWN = ("nerl", "nerl_mean", "adapted_rand_error", "voi_sum", "coverage")


def text(
    rows: Sequence[Mapping[str, float | int]],
    tuned: Sequence[str],
    objective: str,
    *,
    chosen: DecodeValues,
    default: Point,
) -> str:
    """The ten best trials, and below them the chosen and the default one where they are not.

    Args:
      rows: of COMPLETE trials: their scores and parameters.
      tuned: names of the parameters.
      objective: by which they are ordered, the best first.
      chosen: the parameters that are taken.
      default: those of the configuration.
    """

    def marks(row: Mapping[str, float | int]) -> str:
        points = {"chosen": chosen, "default": default}
        return ", ".join(word for word, at in points.items() if _is_at(row, at, tuned))

    best = sorted(rows, key=lambda row: -value_of(objective, row))
    shown = [row for i, row in enumerate(best) if i < _MOST or marks(row)]
    scores = [key for key in _SHOWN if any(key in row for row in rows)]
    names = {key: score_table.COLUMNS[key] for key in scores}
    cells = [["", *tuned, *(name for name, _ in names.values())]]
    for row in shown:
        numbers = [f"{row[name]:g}" for name in tuned]
        numbers += [
            form.format(row[key] + 0) if key in row else "-"
            for key, (_, form) in names.items()
        ]
        cells.append([marks(row), *numbers])
    more = len(rows) - len(shown)
    return score_table.aligned(cells) + (f"\n{more} more" if more else "")


def _is_at(
    row: Mapping[str, float | int], at: DecodeValues, tuned: Sequence[str]
) -> bool:
    """Whether a row is of these parameters, as near as a study tells them apart."""
    values = [at.get(name) for name in tuned]
    return all(
        isinstance(value, int | float) and abs(row[name] - value) <= SAME
        for name, value in zip(tuned, values, strict=True)
    )
