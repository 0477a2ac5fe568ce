"""How a streamed decode is divided: the shape of its boxes, and who labels them.

Labels depend on none of it, but for those of the chain on the shape of its boxes. PyTC's
chunk shape is a setting beside its decoder's, and its workers are one process each; here
boxes follow memory and chunks, or the volume, unless a shape is named.
"""

import dataclasses
import os

from nisbjax.decode.streamed.grid import AT_ONCE
from nisbjax.parallel import cluster
from nisbjax.typing import Triple


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Who does the work on which boxes.

    Attributes:
      kind, workers, address: who, as `cluster.Workers`.
      threads: at work on one box; where None, the cores there are for it.
      box_shape: instead of what memory allows.
    """

    kind: str = "threads"
    workers: int = 0
    address: str = ""
    threads: int | None = None
    box_shape: Triple | None = None

    def team(self, at_once: int = AT_ONCE) -> cluster.Workers:
        """Those who decode; threads read and write beside a box that is being labelled.

        Args:
          at_once: threads.

        Raises:
          InputError: as `cluster.Workers`.
        """
        count = at_once if self.kind == "threads" else self.workers
        return cluster.Workers(self.kind, count, self.address)

    def threads_of_a_box(self) -> int | None:
        """A share of this machine's cores, or all (None) of a cluster's worker's."""
        if self.threads or self.kind == "dask":
            return self.threads
        cores = len(os.sched_getaffinity(0))
        return max(
            1, cores // (AT_ONCE if self.kind == "threads" else self.workers or cores)
        )
