"""Which studies of the chain need no decode for a trial, and their tables, found or made.

Tables are made at the first trial, under another name, so that they are there whole or not at
all; they stay in the study's folder, and a study that goes on with the same ranges finds them.
They may be removed at any time at which nobody tunes. PyTC decodes for each trial.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Integer

from nisbjax.decode.edge_weights import FEW
from nisbjax.decode.methods import METHODS
from nisbjax.skeletons import Skeletons
from nisbjax.store.volume import Volume
from nisbjax.tune import reservation
from nisbjax.tune.chain_tables import TUNED, TableMaker, at_once, problem_of
from nisbjax.tune.chain_trial import ChainTrials
from nisbjax.tune.inputs import Inputs
from nisbjax.tune.trial_folder import trial_folder
from nisbjax.tune.trials import Point, Range
from nisbjax.typing import Section


@dataclasses.dataclass(frozen=True)
class ChainStudy:
    """A study of which trials need tables alone.

    Attributes:
      maker: of the tables.
      folder: theirs.
      at_once: boxes of which tables are made.
    """

    maker: TableMaker
    folder: pathlib.Path
    at_once: int

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        affinities: Volume,
        truth: Skeletons,
        section: Section,
        ranges: Mapping[str, Range],
        parent: pathlib.Path,
    ) -> "ChainStudy | None":
        """The study, or None where each trial needs a whole decode, which the log explains.

        Args:
          inputs, affinities, truth: as `Scorer`.
          section: `decode`.
          ranges: of what is tuned.
          parent: folder of the tables' folders.
        """
        if section.method != "chain":
            return None
        cores = len(os.sched_getaffinity(0))
        others = sorted(set(ranges) - set(TUNED))
        parameters = METHODS["chain"].parameters_of(section)
        reason = ""
        if others or section.min_size:
            reason = f"{', '.join(others) or 'min_size'} needs all voxels"
        elif parameters.ways or parameters.shave:
            reason = "joins and shaved segments need all voxels"
        elif affinities.dtype not in FEW:
            reason = f"affinities of {affinities.dtype} have no tables"
        elif not (count := at_once(affinities, section.memory_gb, cores)):
            reason = (
                f"decode.memory_gb of {section.memory_gb:g} is too little for tables"
            )
        if reason:
            logging.info("each trial is a whole decode: %s", reason)
            return None
        nodes = np.asarray(truth.index_position, np.int64)
        maker = TableMaker(affinities, inputs.edges, nodes, parameters, ranges)
        facts = inputs.made_from(ranges, "")
        facts |= {"edge_offset": inputs.edges.edge_offset, "nodes": len(nodes)}
        return cls(maker, parent / maker.name(facts), count)

    def segments(self, point: Point) -> Integer[np.ndarray, " n"]:
        """The segment at each node, 0 = background."""
        parameters: Any = dataclasses.replace(self.maker.parameters, **point)
        return self._trials.segments(parameters)

    @functools.cached_property
    def _trials(self) -> ChainTrials:
        turn = self.folder.parent.with_name(self.folder.parent.name + ".lock")
        with reservation.in_turn(turn):
            if not self._is_sound():
                self._make()
        maker, threads = self.maker, len(os.sched_getaffinity(0))
        dtype = maker.affinities.dtype
        return ChainTrials(self.folder, maker.grid, len(maker.nodes), dtype, threads)

    def _make(self) -> None:
        started = time.monotonic()
        with trial_folder(self.folder.parent) as own:
            self.maker.make(own, self.at_once)
            os.replace(own, self.folder)
        logging.info(
            "made %s, which the trials share, in %.1f s",
            self.folder,
            time.monotonic() - started,
        )

    def _is_sound(self) -> bool:
        """Whether tables are there and whole; others are removed."""
        if not self.folder.is_dir():
            return False
        problem = problem_of(self.folder)
        if problem:
            logging.warning(
                "%s is damaged (%s); it is made again", self.folder, problem
            )
            shutil.rmtree(self.folder)
            return False
        return True
