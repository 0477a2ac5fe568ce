"""A study: how it proposes points, which of its trials is best, and what may be made of that.

PyTC opens any study of its name (`load_if_exists`) and takes the best of whatever is in it,
without a word on a best threshold at the end of its grid, or on a flat curve.
"""

from collections.abc import Collection, Mapping

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nisbjax.errors import InputError
from nisbjax.skeletons import Skeletons
from nisbjax.tune.grid_search import (
    GRIDS,
    SAME,
    any_value,
    missing,
    run_grid,
    same,
)
from nisbjax.tune.objective import WITHOUT_SPREAD, name_of, objective_of
from nisbjax.tune.samplers import SeededTPE, UnitPoints
from nisbjax.tune.search import run_sampled
from nisbjax.tune.trials import (
    Point,
    Range,
    complete,
    drawn_from,
    release_orphans,
)

__all__ = [  # a study in one name, for callers
    "GRIDS",
    "SAMPLERS",
    "best",
    "choose",
    "complete",
    "few_skeletons",
    "missing",
    "release_orphans",
    "require_like",
    "run_grid",
    "run_sampled",
    "sampler",
    "warnings",
]

SAMPLERS = ("grid", "tpe", "random", "qmc")
SKELETONS = 20  # for each parameter that is tuned
FLAT = 0.02  # a curve that varies by less than this share of its best says little


def sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler | None:
    """The sampler of a name in `SAMPLERS`; None for the grid, which asks for none."""
    if kind == "tpe":
        return SeededTPE(seed)
    return None if kind == "grid" else UnitPoints(kind, seed)


def require_like(
    study: optuna.Study, space: Mapping[str, Range], *, on_grid: bool
) -> None:
    """Refuses a study whose trials are of other parameters, or drew them in another way.

    Args:
      study: opened.
      space: lowest and highest value of each parameter.
      on_grid: whether they come from a grid or from a sampler.

    Raises:
      InputError: naming the trial, what it drew from, and what was wanted.
    """
    wanted = {
        name: any_value(name, low) if on_grid else drawn_from((low, high))
        for name, (low, high) in space.items()
    }
    for trial in study.get_trials(deepcopy=False):
        problem = None
        if trial.params.keys() - space.keys() or (
            trial.state == TrialState.COMPLETE and trial.params.keys() != space.keys()
        ):
            problem = f"tuned {sorted(trial.params)}, and now it is {sorted(space)}"
        for name, found in trial.distributions.items():
            if name not in wanted or problem:
                continue
            alike = type(found) is type(wanted[name])
            if not alike or getattr(found, "log", 0) != getattr(wanted[name], "log", 0):
                problem = f"drew {name} from {found}, and now it is {wanted[name]}"
        if problem:
            raise InputError(
                f"trial {trial.number} of the study {study.study_name} {problem}: another "
                "program's, or another sampler's or range's; name another with "
                "--config.tune.study=NAME"
            )


def best(study: optuna.Study) -> FrozenTrial:
    """The COMPLETE trial of the highest value, the earliest of equals.

    Raises:
      InputError: none is COMPLETE.
    """
    trials = complete(study)
    if not trials:
        raise InputError(
            f"study {study.study_name} has no complete trial; run --mode=tune"
        )
    return max(trials, key=lambda t: (t.value, -t.number))


def choose(study: optuna.Study, configured: Point) -> tuple[FrozenTrial, str]:
    """The trial whose parameters are taken: the best, unless the configured ones are as good.

    A gain below the spread of NERL over resampled skeletons may be the luck of these few. A
    study of VOI or of adapted Rand, which have no such spread, takes its best.

    Args:
      study: with a COMPLETE trial.
      configured: the values that the configuration has for what is tuned.

    Returns:
      The trial, and a sentence where it is not the best; "".

    Raises:
      InputError: as `best`.
    """
    top, objective = best(study), objective_of(study)
    default = next((t for t in complete(study) if same(t.params, configured)), top)
    spread = top.user_attrs.get("nerl_sd", 0.0)
    gain = (top.value or 0.0) - (default.value or 0.0)
    if objective in WITHOUT_SPREAD or default.number == top.number or gain > spread:
        return top, ""
    return default, (
        f"the default {said(default.params)} is kept: {name_of(objective)} "
        f"{default.value:.4f}, and {top.value:.4f} at the best, {said(top.params)}, which "
        f"is within one standard deviation over skeletons ({spread:.4f})"
    )


def warnings(study: optuna.Study) -> list[str]:
    """What a reader of the best point must know: the edge of a range, a flat curve."""
    trials = complete(study)
    if len(trials) < 2:
        return []
    top = best(study)
    found = []
    for name, value in top.params.items():
        tried = sorted(t.params[name] for t in trials if name in t.params)
        key = "thresholds" if name == "threshold" else "space"
        for end, side in ((tried[0], "lowest"), (tried[-1], "highest")):
            if abs(value - end) <= SAME < tried[-1] - tried[0]:
                found.append(
                    f"the best {name} {value:g} is the {side} that was tried; the "
                    f"optimum may lie beyond: extend --config.tune.{key}"
                )
    values = [t.value for t in trials if t.value is not None]
    spread = max(values) - min(values)
    if spread <= FLAT * abs(max(values)):
        first, *more = top.params
        tried = sorted(t.params[first] for t in trials if first in t.params)
        where = f"over {len(trials)} trials"
        if not more:
            where = f"between {first}s {tried[0]:g} and {tried[-1]:g}"
        found.append(
            f"the curve is flat: {name_of(objective_of(study))} varies by {spread:.4f} "
            f"{where}, so the best one says little"
        )
    return found


def few_skeletons(truth: Skeletons, parameters: Collection[str]) -> str:
    """A sentence where too little is scored for so many parameters; ""."""
    count = len(np.unique(truth.node_id))
    if len(parameters) * SKELETONS <= count:
        return ""
    return (
        f"{count} skeletons for {len(parameters)} tuned parameter(s); wanted at least "
        f"{SKELETONS} for each, or the best point is luck"
    )


def said(point: Point) -> str:
    """Parameters in a sentence."""
    return ", ".join(f"{name} {value:g}" for name, value in point.items())
