"""The first crops of a training, as its network will see them.

Read, augmented, eroded and cut as a step does it; BANIS and PyTC show none before they train.
"""

from typing import NamedTuple

import jax
import numpy as np

from nisbjax.data import targets
from nisbjax.data.loader import Loader


class FirstCrop(NamedTuple):
    """One sample of the training stream.

    Attributes:
      step, sample: which it is.
      source: file and box.
      view: on the host, without the axis of samples.
    """

    step: int
    sample: int
    source: str
    view: targets.View


def first_crops(
    loader: Loader, rule: targets.ExampleRule, *, seed: int, batch: int, count: int = 3
) -> list[FirstCrop]:
    """The first samples, one after another; one program is compiled for all.

    Args:
      loader: of training.
      rule: of its examples.
      seed: of the run.
      batch: samples of the loader's batches.
      count: how many samples.

    Raises:
      InputError: as `Loader.batch`.
    """
    found = []
    for number in range(count):
        step, sample = divmod(number, batch)
        crops = loader.on_host(step, [sample])
        made = jax.device_get(_view(crops, rule, seed=seed, step=step))
        view = targets.View(*(np.asarray(field)[0] for field in made))
        (source,) = loader.describe(step, [sample])
        found.append(FirstCrop(step, sample, source, view))
    return found


# One program for all crops of a rule.
_view = jax.jit(targets.view, static_argnames="rule")
