"""Ways to join fragments, one after another, and the labels that they make one.

Each way works on the pairs that the one before has left, so `average` and then `absorb` hands
small fragments to what is one by then. PyTC calls waterz alone; `elf` has one way at a time.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nisbjax.decode.agglomeration.joins import absorb, average, quantile
from nisbjax.decode.agglomeration.pairs import Evidence, Pairs, Table, load_pairs
from nisbjax.decode.agglomeration.region_graph import RegionGraph, region_graph
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.errors import InputError, require_choice
from nisbjax.store.volume import Volume

_EVIDENCE = ("faces", "short", "long")
# By way: the parameters that it takes.
WAYS = {
    "average": _EVIDENCE,
    "absorb": (*_EVIDENCE, "absorb_below", "absorb_least"),
    "quantile": ("faces", "quantile", "quantile_threshold"),
}


@dataclasses.dataclass(frozen=True)
class JoinParameters:
    """What decides which fragments are one.

    Attributes:
      joins: keys of `WAYS`, in their order, or one; empty words mean none.
      faces, short, long: as `Evidence`.
      absorb_below: voxels; smaller fragments join one that has so many.
      absorb_least: logit beyond `short` and `long` that the mean of such a pair exceeds.
      quantile: of the affinities of common faces, in percent.
      quantile_threshold: fragments join while 1 less the quantile is below it.
    """

    joins: tuple[str, ...] | str = ()
    faces: int = 20
    short: float = 1.0
    long: float = 0.0
    absorb_below: int = 500
    absorb_least: float = 0.0
    quantile: float = 50.0
    quantile_threshold: float = 0.4

    @property
    def ways(self) -> tuple[str, ...]:
        """In their order, without empty words."""
        words = (self.joins,) if isinstance(self.joins, str) else self.joins
        return tuple(word for word in words if word)

    @property
    def evidence(self) -> Evidence:
        """Which links count.

        Raises:
          InputError: a key that means nothing.
        """
        return Evidence(self.faces, self.short, self.long)

    @property
    def by_histogram(self) -> bool:
        """Whether common faces are counted by their affinities."""
        return "quantile" in self.ways

    def joining(self) -> dict[str, Any]:
        """The parameters that count, by their names."""
        if not self.ways:
            return {}
        taken = {name for way in self.ways for name in WAYS[way]}
        names = [f.name for f in dataclasses.fields(JoinParameters) if f.name in taken]
        return {"joins": self.ways, **{name: getattr(self, name) for name in names}}

    def check_joins(self) -> None:
        """Refuses parameters that mean nothing.

        Raises:
          InputError: naming one.
        """
        for way in self.ways:
            require_choice("decode.joins", way, WAYS)
        if not self.ways:
            return
        _ = self.evidence
        if self.absorb_below < 1:
            raise InputError(
                f"decode.absorb_below is {self.absorb_below}; wanted 1 or more voxels"
            )
        if not math.isfinite(self.absorb_least):
            raise InputError(
                f"decode.absorb_least is {self.absorb_least}; wanted a finite logit"
            )
        for name, most in (("quantile", 100), ("quantile_threshold", 1)):
            value = getattr(self, name)
            if not 0 <= value <= most:  # NaN too
                raise InputError(
                    f"decode.{name} is {value}; wanted a number in [0, {most}]"
                )

    def table_of(self, pairs: Pairs) -> Table:
        """Position of each fragment -> that of the one it becomes.

        Args:
          pairs: as `load_pairs`, with histograms where `by_histogram`; consumed.
        """
        table = np.arange(len(pairs.voxels))
        for turn, way in enumerate(self.ways, 1):
            last = turn == len(self.ways)
            found = self._joined(way, pairs if last else pairs.copy())
            table = found[table]
            if not last:
                pairs = pairs.joined(found)
        return table

    def _joined(self, way: str, pairs: Pairs) -> Table:
        if way == "average":
            return average(pairs)
        if way == "absorb":
            return absorb(pairs, self.absorb_below, self.absorb_least)
        return quantile(pairs, self.quantile, self.quantile_threshold)


def join_volume(
    labels: Volume,
    affinities: Volume,
    folder: pathlib.Path,
    parameters: JoinParameters,
    *,
    memory_gb: float,
    edges: MaskedEdges | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
) -> Table:
    """Which labels of a volume are one.

    Args:
      labels: [x y z], 0 = background; fragments that were grown until they touch.
      affinities: [c x y z].
      folder: receives the region graph (`region_graph`); what an earlier attempt left
        there is taken.
      parameters: of the joins.
      memory_gb: for everything that is held at once.
      edges: which affinities count; all, stored at their source, where None.
      fingerprint: of labels and affinities.
      schedule: of those who count links.

    Returns:
      Label -> joined label, one of its segment, up to the highest label of the volume;
      0 stays.

    Raises:
      InputError: as `region_graph` and `load_pairs`; parameters that mean nothing.
    """
    parameters.check_joins()
    graph = region_graph(
        labels,
        affinities,
        folder,
        memory_gb=memory_gb,
        histograms=parameters.by_histogram,
        edges=edges,
        fingerprint=fingerprint,
        schedule=schedule,
    )
    names, joined = joined_labels(graph, parameters, memory_gb=memory_gb)
    table = np.arange(int(names.max(initial=0)) + 1)
    table[names] = joined
    return table


def joined_labels(
    graph: RegionGraph, parameters: JoinParameters, *, memory_gb: float
) -> tuple[Table, Table]:
    """As `join_volume`, of a region graph whose labels need not be consecutive.

    Returns:
      All labels, ascending, and the label that each joins.

    Raises:
      InputError: memory that does not suffice.
    """
    pairs = load_pairs(
        graph,
        parameters.evidence,
        memory_gb=memory_gb,
        histogram=parameters.by_histogram,
        ways=len(parameters.ways),
    )
    return pairs.names, pairs.names[parameters.table_of(pairs)]
