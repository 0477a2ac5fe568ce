"""The score of parameters: the segments at the skeletons' nodes, and their NERL.

PyTC and BANIS decode the whole volume for each threshold. Here the segments at the nodes
follow from one pass over the affinities for all thresholds at once, where a node's segment
depends on nothing but the threshold; from tables that are made once for the chain
(`chain_study`); elsewhere each trial is decoded, as in testing.
"""

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax.decode.thresholds import sweep
from nisbjax.errors import InputError
from nisbjax.evaluate import nerl, nodes
from nisbjax.skeletons import Skeletons
from nisbjax.store.volume import Volume, open_labels
from nisbjax.tune.chain_study import ChainStudy
from nisbjax.tune.inputs import Inputs
from nisbjax.tune.trials import Point, Range, Score
from nisbjax.typing import Section

# Takes {"threshold": 0.7, "min_size": 100}, returns the segmentation's path.
Decode = Callable[[Point], str | os.PathLike[str]]


class Scorer:
    """Scores points of a space on one volume.

    Args:
      inputs: of the study.
      affinities: its prediction, opened.
      truth: the skeletons in it.
      section: `decode`.
      ranges: lowest and highest value of the parameters that are tuned.
      decode: a whole decode with other values of `decode.*`; None where there is none.
      tables: folder for what trials of the chain share; None for whole decodes.

    Raises:
      InputError: trials need a whole decode, and there is none.
    """

    def __init__(
        self,
        inputs: Inputs,
        affinities: Volume,
        truth: Skeletons,
        section: Section,
        ranges: Mapping[str, Range],
        decode: Decode | None,
        tables: pathlib.Path | None = None,
    ):
        self._inputs, self._affinities, self._truth = inputs, affinities, truth
        self._memory_gb = section.memory_gb
        self._decode = decode
        # What follows a node's segment from the forest needs no decoded volume.
        plain = section.method == "affinity_cc" and not section.min_size
        self._in_one_pass = plain and set(ranges) == {"threshold"}
        self._chain = tables and ChainStudy.of(
            inputs, affinities, truth, section, ranges, tables
        )
        if not (self._in_one_pass or self._chain) and decode is None:
            raise InputError(
                f"tuning {sorted(ranges)} with decode.method={section.method} and "
                f"decode.min_size={section.min_size} needs a whole decode for each trial; "
                "run it by --mode=tune"
            )
        if not self._in_one_pass and section.method != "chain":
            logging.info(
                "each trial is a whole decode: tables are of decode.method=chain, one pass "
                "over the volume of affinity_cc's threshold without min_size"
            )

    def segments(self, values: Sequence[Any]) -> Iterable[np.ndarray]:
        """Segments at the nodes for each of some thresholds, or points, in their order."""
        if not self._in_one_pass:
            points = (v if isinstance(v, Mapping) else {"threshold": v} for v in values)
            return (self._decoded(point) for point in points)
        thresholds = list(values)
        lowest, highest = min(thresholds), max(thresholds)
        logging.info(
            "one pass for %d thresholds, %g to %g", len(thresholds), lowest, highest
        )
        return sweep.nodes_by_threshold(
            self._affinities,
            self._truth.index_position,
            tuple(thresholds),
            edges=self._inputs.edges,
            memory_gb=self._memory_gb,
        )

    def score(self, segments: np.ndarray) -> Score:
        """Scores of segments at the nodes, with `nerl`."""
        return nerl.score(self._truth, segments)

    def score_of(self, point: Point) -> Score:
        """Scores of one point of the space."""
        if not self._in_one_pass:
            return self.score(self._decoded(point))
        (segments,) = self.segments([float(point["threshold"])])
        return self.score(segments)

    def _decoded(self, point: Point) -> np.ndarray:
        if self._chain is not None:
            return self._chain.segments(point)
        assert self._decode is not None
        return nodes.read_node_segments(open_labels(self._decode(point)), self._truth)
