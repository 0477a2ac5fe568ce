"""Which parameters of the decoder a study varies, and between which values.

PyTC describes its search space in YAML, by function and keyword; here `tune.space` names
keys of `decode`, so what is tuned is what `--decode.<key>` sets.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax.decode.methods import METHODS
from nisbjax.errors import InputError, require_choice
from nisbjax.keys.checks import optional, require, shown
from nisbjax.keys.ranges import RANGES
from nisbjax.tune import grid_search as grids
from nisbjax.tune.trials import DECADES, LARGEST, Range
from nisbjax.typing import Section

# What a study varies where `tune.space` names nothing.
OWN = {
    "": (("threshold", 0.40, 0.94),),
    # The default lies on the grid, so that a study says whether it is as good.
    "chain": (("attract", 0.0, 0.4, 3), ("repel", 0.2, 1.0, 5)),
}
# By method: a parameter that does not exceed another.
AT_MOST = {"grow": {"low_threshold": "threshold"}}
_MOST_POINTS = 10_000  # of a grid; each is decoded


@dataclasses.dataclass(frozen=True)
class Space:
    """What a study varies, and how it goes through it.

    Attributes:
      ranges: lowest and highest value of each parameter, the threshold first.
      points: of the grid: thresholds, or points of several parameters; none of a sampler.
      configured: the value of each parameter that `decode` has, a sampler's first trial.
      trials: that a sampler is to complete.
      at_most: parameters that do not exceed another.
    """

    ranges: Mapping[str, Range]
    points: Sequence[Any]
    configured: Mapping[str, float | int]
    trials: int
    at_most: Mapping[str, str]

    @classmethod
    def of(cls, section: Section, decode: Any) -> "Space":
        """The space of a configuration.

        Args:
          section: `tune`.
          decode: `decode`, whose method is known.

        Raises:
          InputError: as `ranges` and `points`.
        """
        found = ranges(section, decode)
        return cls(
            ranges=found,
            points=points(section, decode) if section.sampler == "grid" else (),
            configured={name: decode[name] for name in found},
            trials=section.trials,
            at_most=AT_MOST.get(decode.method, {}),
        )

    @property
    def on_grid(self) -> bool:
        return bool(self.points)

    @property
    def widest(self) -> dict[str, float | int]:
        """The point of all that keeps its parameters as far apart as they come."""
        return {k: ends[k == "threshold"] for k, ends in self.ranges.items()}


def ranges(section: Section, decode: Any) -> dict[str, Range]:
    """Lowest and highest values of `tune.space`, the threshold first.

    Raises:
      InputError: an entry that is none, or a second one of its name; no threshold, a key
        that the method does not take, a value that its key does not take, or ranges of
        which one lies above another that bounds it.
    """
    space: dict[str, Range] = {}
    for entry in entries(section, decode):
        if not _names_a_range(entry):
            raise InputError(
                f"tune.space holds {shown(entry)}; wanted (name, low, high), or (name, "
                "low, high, how many) for tune.sampler=grid"
            )
        if entry[0] in space:
            raise InputError(f"tune.space names {entry[0]} twice; wanted it once")
        space[entry[0]] = (entry[1], entry[2])
    method = decode.method
    taken = (*METHODS[method].parameters, "min_size")
    if "threshold" in taken:
        if "threshold" not in space:
            raise InputError(
                f"tune.space names {sorted(space)}; wanted (name, low, high) of the "
                "threshold at least"
            )
        space = {"threshold": space.pop("threshold"), **space}
    unknown = sorted(set(space) - set(taken))
    if unknown:
        raise InputError(
            f"tune.space names {', '.join(unknown)}, which decode.method={method} does "
            f"not take; wanted some of {', '.join(taken)}"
        )
    for name, ends in space.items():
        if isinstance(decode[name], int) and not all(
            isinstance(end, int) for end in ends
        ):
            raise InputError(f"tune.space has {name} from {ends}; wanted whole numbers")
        for end in ends:
            require(f"tune.space's {name}", end, RANGES[f"decode.{name}"])
            if end > LARGEST:
                raise InputError(
                    f"tune.space's {name} is {end}; wanted at most {LARGEST}"
                )
    for name, other in AT_MOST.get(method, {}).items():
        lowest = space[name][0] if name in space else decode[name]
        if lowest > space[other][0] and section.sampler != "grid":
            raise InputError(
                f"{name} begins at {lowest} and {other} in tune.space at "
                f"{space[other][0]}; wanted {name} to begin no higher, for it is at most "
                f"the {other}"
            )
    if section.trials < 1 and section.sampler != "grid":
        raise InputError(
            f"tune.trials is {section.trials}; wanted 1 or more for tune.sampler="
            f"{section.sampler}"
        )
    return space


def entries(section: Section, decode: Any) -> Sequence[Any]:
    """`tune.space`, or what a study of the method varies where that names nothing."""
    return section.space or OWN.get(decode.method, OWN[""])


def _names_a_range(entry: Any) -> bool:
    """Whether it is (name, low, high), or that with a number of values."""
    if not isinstance(entry, tuple | list) or len(entry) not in (3, 4):
        return False
    name, low, high, *count = entry
    if not isinstance(name, str) or not (_is_number(low) and _is_number(high)):
        return False
    if count and (not isinstance(count[0], int) or isinstance(count[0], bool)):
        return False
    return low <= high


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return not isinstance(value, float) or math.isfinite(value)


def grid(section: Section) -> tuple[float, ...]:
    """The thresholds: of `tune.grid` by name, or `tune.thresholds`.

    Raises:
      InputError: no such grid, or a threshold outside (0, 1).
    """
    name = optional(section.grid)
    if name:
        require_choice("tune.grid", name, grids.GRIDS)
        return grids.GRIDS[name]
    given = section.thresholds
    try:
        thresholds = sorted({float(x) for x in given})
    except (TypeError, ValueError):
        thresholds = []
    if not thresholds or not all(0 <= x < 1 for x in thresholds):
        raise InputError(
            f"tune.thresholds is {tuple(given)}; wanted one or more numbers from 0 to 1"
        )
    return tuple(thresholds)


def points(section: Section, decode: Any) -> list[Any]:
    """The grid: thresholds, or each with every combination of the others in `tune.space`.

    Raises:
      InputError: as `grid`, or `tune.space` does not say how many values.
    """
    axes: dict[str, list[Any]] = {}
    if "threshold" in METHODS[decode.method].parameters:
        axes["threshold"] = list(grid(section))
    more = [e for e in entries(section, decode) if e[0] != "threshold"]
    for entry in more:
        if len(entry) < 4 or entry[3] < 1:
            raise InputError(
                f"tune.space has {shown(tuple(entry))}; tune.sampler=grid wants a fourth "
                "number, how many values from low to high"
            )
    counts = [*map(len, axes.values()), *(entry[3] for entry in more)]
    if math.prod(counts) > _MOST_POINTS:
        raise InputError(
            f"tune.thresholds and tune.space make a grid of {math.prod(counts)} points; "
            f"wanted at most {_MOST_POINTS}"
        )
    for name, low, high, count in more:
        axes[name] = _values((low, high), count)
    combined = [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*axes.values())
    ]
    limits = AT_MOST.get(decode.method, {})
    found = [
        point
        for point in combined
        if all(
            point.get(name, decode[name]) <= point[other]
            for name, other in limits.items()
        )
    ]
    if len(found) < len(combined):
        left_out = len(combined) - len(found)
        logging.info("%d points break %s <= ... and are left out", left_out, [*limits])
    if not found:
        raise InputError(
            f"no point of the grid has {' and '.join(limits)} at most its threshold; "
            "raise --config.tune.thresholds"
        )
    alone = set(axes) == {"threshold"}
    return [point["threshold"] for point in found] if alone else found


def _values(ends: Range, count: int) -> list[Any]:
    """Values from low to high; whole numbers over decades are equal factors apart."""
    low, high = ends
    if not (isinstance(low, int) and isinstance(high, int)):
        return np.linspace(low, high, count).round(6).tolist()
    far = low > 0 and high >= DECADES * low
    steps = (np.geomspace if far else np.linspace)(low, high, count)
    return sorted({round(x) for x in steps.tolist()})
