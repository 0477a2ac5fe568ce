"""Samplers whose draws depend on the seed and the trial's number, not on the process.

Optuna's samplers go on with one stream of random numbers, so a study that is killed and
started again draws the first points twice. Here trial k's draws are a function of (seed, k)
for `random` and `qmc`, whoever runs it and how often. For `tpe` they are one of (seed, k)
and of the trials that it sees: those complete, and those under way in other processes. One
process that tunes alone ends with the same points however often it is killed; several that
share a study do not, for which of them is the first to finish is chance.
"""

import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

_MOST_PARAMETERS = 16


class UnitPoints(BaseSampler):
    """Trial k takes the k-th of a sequence of points in the unit cube.

    Parameters are the cube's axes in the order in which they are asked for.
    """

    def __init__(self, kind: str, seed: int):
        self._kind, self._seed = kind, seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        point = unit_point(self._kind, self._seed, trial.number)
        return stretch(float(point[len(trial.params)]), param_distribution)


class SeededTPE(BaseSampler):
    """Optuna's TPE, seeded for each draw by the seed, the trial and which draw it is."""

    def __init__(self, seed: int):
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler(trial, 0).infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return self._sampler(trial, 0).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        sampler = self._sampler(trial, 1 + len(trial.params))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _sampler(self, trial: FrozenTrial, draw: int) -> TPESampler:
        entropy = [_positive(self._seed), trial.number, draw]
        (seed,) = np.random.SeedSequence(entropy).generate_state(1)
        # constant_liar: workers that run side by side propose different points
        return TPESampler(seed=int(seed), constant_liar=True)


def unit_point(kind: str, seed: int, number: int) -> np.ndarray:
    """The point of a trial in the unit cube, [0, 1) on each axis.

    Args:
      kind: `random`, independent points, or `qmc`, a scrambled Sobol sequence.
      seed: of the sequence.
      number: of the trial, from 0.
    """
    if kind == "random":
        draw = np.random.default_rng([_positive(seed), number])
        return draw.random(_MOST_PARAMETERS)
    from scipy.stats import qmc  # takes half a second

    sequence = qmc.Sobol(_MOST_PARAMETERS, scramble=True, rng=_positive(seed))
    if number:
        sequence.fast_forward(number)
    return sequence.random(1)[0]


def stretch(share: float, distribution: BaseDistribution) -> float | int:
    """A share in [0, 1) of a distribution's range, as a value of it.

    Whole numbers have ranges of one each, from half below to half above.
    """
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    margin = 0.5 if isinstance(distribution, IntDistribution) else 0.0
    if distribution.log:
        ends = math.log(low - margin), math.log(high + margin)
        value = math.exp(ends[0] + share * (ends[1] - ends[0]))
    else:
        value = low - margin + share * (high - low + 2 * margin)
    if isinstance(distribution, IntDistribution):
        return min(max(round(value), int(low)), int(high))
    return min(max(value, low), high)


def _positive(seed: int) -> int:
    return seed % (1 << 64)
