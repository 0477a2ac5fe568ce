"""Which parameters of the decoder a study varies, and between which values.

PyTC describes its search space in YAML, by function and keyword; here `tune.space` names
keys of `decode`, so what is tuned is what `--config.decode.<key>` sets.
"""

import itertools
from typing import Any

import numpy as np
from absl import logging

from nisbjax import config as config_lib
from nisbjax.decode.stage import METHODS
from nisbjax.errors import InputError
from nisbjax.tune import study

# By method: a parameter that does not exceed another.
AT_MOST = {"grow": {"low_threshold": "threshold"}}


def ranges(config: Any) -> dict[str, study.Range]:
    """Lowest and highest values of `tune.space`, the threshold first.

    Raises:
        InputError: an entry that is none, no threshold, a key that the method does not
            take, or ranges of which one lies above another that bounds it.
    """
    space: dict[str, study.Range] = {}
    for entry in config.tune.space:
        if not _names_a_range(entry):
            raise InputError(
                f"tune.space holds {entry!r}; wanted (name, low, high), or (name, "
                "low, high, how many) for tune.sampler=grid"
            )
        space[entry[0]] = (entry[1], entry[2])
    if "threshold" not in space:
        raise InputError(
            f"tune.space names {sorted(space)}; wanted (name, low, high) of the threshold "
            "at least"
        )
    space = {"threshold": space.pop("threshold"), **space}
    method = config.decode.method
    taken = ("threshold", "min_size", *METHODS[method].parameters)
    unknown = sorted(set(space) - set(taken))
    if unknown:
        raise InputError(
            f"tune.space names {', '.join(unknown)}, which decode.method={method} does "
            f"not take; wanted some of {', '.join(taken)}"
        )
    for name, ends in space.items():
        if isinstance(config.decode[name], int) and not all(
            isinstance(end, int) for end in ends
        ):
            raise InputError(f"tune.space has {name} from {ends}; wanted whole numbers")
    for name, other in AT_MOST.get(method, {}).items():
        lowest = space[name][0] if name in space else config.decode[name]
        if lowest > space[other][0] and config.tune.sampler != "grid":
            raise InputError(
                f"{name} begins at {lowest} and {other} in tune.space at "
                f"{space[other][0]}; wanted {name} to begin no higher, for it is at most "
                f"the {other}"
            )
    if config.tune.trials < 1 and config.tune.sampler != "grid":
        raise InputError(
            f"tune.trials is {config.tune.trials}; wanted 1 or more for tune.sampler="
            f"{config.tune.sampler}"
        )
    return space


def _names_a_range(entry: Any) -> bool:
    """Whether it is (name, low, high), or that with a number of values."""
    if not isinstance(entry, tuple | list) or len(entry) not in (3, 4):
        return False
    name, *numbers = entry
    if not isinstance(name, str):
        return False
    return all(isinstance(x, int | float) for x in numbers) and numbers[0] <= numbers[1]


def grid(config: Any) -> tuple[float, ...]:
    """The thresholds: of `tune.grid` by name, or `tune.thresholds`.

    Raises:
        InputError: no such grid, or a threshold outside (0, 1).
    """
    name = config_lib.optional(config.tune.grid)
    if name:
        config_lib.require_choice("tune.grid", name, study.GRIDS)
        return study.GRIDS[name]
    given = config.tune.thresholds
    try:
        thresholds = sorted({float(x) for x in given})
    except (TypeError, ValueError):
        thresholds = []
    if not thresholds or not all(0 <= x < 1 for x in thresholds):
        raise InputError(
            f"tune.thresholds is {tuple(given)}; wanted one or more numbers from 0 to 1"
        )
    return tuple(thresholds)


def points(config: Any) -> list[Any]:
    """The grid: thresholds, or each with every combination of the others in `tune.space`.

    Raises:
        InputError: as `grid`, or `tune.space` does not say how many values.
    """
    axes: dict[str, list[Any]] = {"threshold": list(grid(config))}
    for name, low, high, *count in config.tune.space:
        if name == "threshold":
            continue
        if not count or count[0] < 1:
            raise InputError(
                f"tune.space has {(name, low, high, *count)}; tune.sampler=grid wants a "
                "fourth number, how many values from low to high"
            )
        if isinstance(low, int) and isinstance(high, int):
            far = low > 0 and high >= study.DECADES * low
            steps = (np.geomspace if far else np.linspace)(low, high, count[0])
            axes[name] = sorted({round(x) for x in steps.tolist()})
        else:
            axes[name] = np.linspace(low, high, count[0]).round(6).tolist()
    combined = [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*axes.values())
    ]
    limits = AT_MOST.get(config.decode.method, {})
    found = [
        point
        for point in combined
        if all(
            point.get(name, config.decode[name]) <= point[other]
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
    return found if len(axes) > 1 else [point["threshold"] for point in found]
