"""The score of parameters by dense labels: a whole decode each, compared voxel by voxel.

What segments share with labels is a matter of all voxels, so that neither the one pass over
thresholds nor the chain's tables say it, which know the nodes of skeletons; each trial is
decoded as in testing. PyTC does so whatever it scores.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from nisbjax.errors import InputError
from nisbjax.evaluate import dense
from nisbjax.store import regions
from nisbjax.store.volume import Volume, open_labels
from nisbjax.tune.inputs import Inputs
from nisbjax.tune.scorer import Decode
from nisbjax.tune.trials import Point, Score


class LabelScorer:
    """Scores points of a space on one volume, as `Scorer` does by skeletons.

    Args:
      inputs: of the study.
      affinities: its prediction, opened; labels are compared where it covers them.
      memory_gb: for the boxes that are read at once.
      decode: a whole decode with other values of `decode.*`.

    Raises:
      InputError: there is no whole decode.
    """

    def __init__(
        self,
        inputs: Inputs,
        affinities: Volume,
        memory_gb: float,
        decode: Decode | None,
    ):
        if decode is None:
            raise InputError(
                "tuning by dense labels needs a whole decode for each trial; run it by "
                "--mode=tune"
            )
        self._truth = inputs.truth
        self._labels = regions.part_like(open_labels(self._truth.label), affinities)
        self._memory_gb = memory_gb
        self._decode = decode
        self._timed = False

    def segments(self, values: Sequence[Any]) -> Iterator[str | os.PathLike[str]]:
        """The segmentation of each of some thresholds, or points; gone with the next."""
        for done, value in enumerate(values):
            point = value if isinstance(value, Mapping) else {"threshold": value}
            yield self._timed_decode(point, left=len(values) - done - 1)

    def score(self, segmentation: str | os.PathLike[str]) -> Score:
        """Adapted Rand and VOI of a segmentation, by its path."""
        table = dense.contingency_of_volumes(
            self._labels,
            open_labels(segmentation),
            unlabeled=self._truth.unlabeled,
            memory_gb=self._memory_gb,
        )
        return dense.adapted_rand(table) | dense.voi(table)

    def score_of(self, point: Point) -> Score:
        """Scores of one point of the space."""
        return self.score(self._timed_decode(point))

    def _timed_decode(self, point: Point, left: int = 0) -> str | os.PathLike[str]:
        """A whole decode; the log says how long the first one took, for all of them."""
        started = time.monotonic()
        path = self._decode(point)
        if not self._timed:
            seconds = time.monotonic() - started
            rest = f", so {left} more take about {left * seconds:.0f} s" * bool(left)
            logging.info("each trial is a whole decode, of %.1f s%s", seconds, rest)
        self._timed = True
        return path
