"""A study: how it proposes points, which of its trials is best, and what may be made of that.

PyTC opens any study of its name (`load_if_exists`) and takes the best of whatever is in it,
without a word on a best threshold at the end of its grid, or on a flat curve.
"""

from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from nisbjax.errors import InputError
from nisbjax.tune.grid_search import GRIDS, SAME, any_value, missing, run_grid
from nisbjax.tune.samplers import SeededTPE, UnitPoints
from nisbjax.tune.search import run_sampled
from nisbjax.tune.trials import Range, complete, drawn_from, release_orphans

__all__ = [  # a study in one name, for callers
    "GRIDS",
    "SAMPLERS",
    "best",
    "complete",
    "missing",
    "release_orphans",
    "require_like",
    "run_grid",
    "run_sampled",
    "sampler",
    "warnings",
]

SAMPLERS = ("grid", "tpe", "random", "qmc")
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
        name: any_value(low) if on_grid else drawn_from((low, high))
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
    """The COMPLETE trial of the highest NERL, the earliest of equals.

    Raises:
      InputError: none is COMPLETE.
    """
    trials = complete(study)
    if not trials:
        raise InputError(
            f"study {study.study_name} has no complete trial; run --mode=tune"
        )
    return max(trials, key=lambda t: (t.value, -t.number))


def warnings(study: optuna.Study) -> list[str]:
    """What a reader of the best threshold must know: the edge of the grid, a flat curve."""
    trials = [t for t in complete(study) if "threshold" in t.params]
    if len(trials) < 2:
        return []
    top = best(study)
    tried = sorted(t.params["threshold"] for t in trials)
    values = [t.value for t in trials if t.value is not None]
    found = []
    threshold = top.params["threshold"]
    for end, side in ((tried[0], "lowest"), (tried[-1], "highest")):
        if abs(threshold - end) <= SAME:
            found.append(
                f"the best threshold {threshold:g} is the {side} that was tried; the "
                "optimum may lie beyond: extend --config.tune.thresholds"
            )
    spread = max(values) - min(values)
    if spread <= FLAT * max(values):
        found.append(
            f"the curve is flat: NERL varies by {spread:.4f} between thresholds "
            f"{tried[0]:g} and {tried[-1]:g}, so the best one says little"
        )
    return found
