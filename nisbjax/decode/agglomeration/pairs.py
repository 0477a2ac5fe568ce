"""Pairs of linked fragments in memory: how many links there are, and what they say in sum.

A pair may join where its fragments touch over enough faces; long-range links are evidence
about pairs that touch, and about what these become when they are joined. `elf` keeps touching
pairs alone ("lifted" edges are for its multicut).
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Int32, Integer

from nisbjax.decode.agglomeration.counting import HIGH, KIND, LOW, NUMBER, TOTAL
from nisbjax.decode.agglomeration.evidence import BINS, fixed
from nisbjax.decode.agglomeration.region_graph import RegionGraph
from nisbjax.errors import InputError

Table = Int[np.ndarray, " l"]  # position of a label -> position that it joins


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Which links count, and from what logit on they speak for joining.

    Attributes:
      faces: of fewer common faces nothing counts; such fragments do not touch.
      short: logit of a common face that says nothing.
      long: logit of a long-range link that says nothing; None leaves all of them out.
    """

    faces: int = 20
    short: float = 1.0
    long: float | None = 0.0

    def __post_init__(self):
        if self.faces < 1:
            raise InputError(f"decode.faces is {self.faces}; wanted 1 or more")
        for name, value in (("short", self.short), ("long", self.long)):
            if value is not None and not np.isfinite(value):
                raise InputError(f"decode.{name} is {value}; wanted a finite logit")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of labels, ascending, by the positions of the labels among all that there are.

    Attributes:
      names: the labels, ascending.
      low, high: positions, low < high.
      touching: whether they may join.
      number: of links.
      total: of their logits less what says nothing, in units of 2^-20.
      voxels: of each label.
      histogram: of the affinities of common faces, [pairs 256], where it is counted.
    """

    names: Int[np.ndarray, " l"]
    low: Integer[np.ndarray, " e"]
    high: Integer[np.ndarray, " e"]
    touching: Bool[np.ndarray, " e"]
    number: Int[np.ndarray, " e"]
    total: Int[np.ndarray, " e"]
    voxels: Int[np.ndarray, " l"]
    histogram: Int32[np.ndarray, "e b"] | None = None

    def copy(self) -> "Pairs":
        """The same pairs, for who consumes them."""
        return dataclasses.replace(
            self,
            touching=self.touching.copy(),
            number=self.number.copy(),
            total=self.total.copy(),
            histogram=None if self.histogram is None else self.histogram.copy(),
        )

    def joined(self, table: Table) -> "Pairs":
        """The pairs of what a table makes of the labels."""
        low, high = table[self.low], table[self.high]
        low, high = np.minimum(low, high), np.maximum(low, high)
        kept = np.flatnonzero(low != high)
        order = kept[np.lexsort((high[kept], low[kept]))]
        low, high = low[order], high[order]
        new = np.flatnonzero(
            np.diff(low, prepend=-1).astype(bool)
            | np.diff(high, prepend=-1).astype(bool)
        )
        voxels = np.zeros_like(self.voxels)
        np.add.at(voxels, table, self.voxels)

        def added(values: np.ndarray) -> np.ndarray:
            if not len(new):
                return values[order]
            return np.add.reduceat(values[order], new, dtype=values.dtype)

        histogram = None if self.histogram is None else added(self.histogram)
        return Pairs(
            self.names,
            low[new].astype(self.low.dtype),
            high[new].astype(self.high.dtype),
            added(self.touching),
            added(self.number),
            added(self.total),
            voxels,
            histogram,
        )


def memory_bytes(
    pairs: int, labels: int, *, histogram: bool = False, ways: int = 1
) -> int:
    """Of pairs, and of what agglomeration makes of them (`linkage.agglomerate`).

    A pair: two labels, a flag, number and total; lists, hash table, heap and strength. 69
    bytes at most, and 1,024 of a histogram; a label: 40. Between two ways of joining, the
    pairs of both and the order in between (`Pairs.joined`): 64 bytes a pair more than what
    both are, and histograms three times.
    """
    wide = 4 if 2 * pairs < 2**31 else 8
    held = 2 * wide + 1 + 16
    each = held + (2 + 5 + 2) * wide + 8
    if ways > 1:
        each = max(each + held, 2 * held + 16 + 64)
    copies = 3 if ways > 1 else 1
    of_label = 4 * wide + 24 + 24 * (ways > 1)
    return pairs * (each + 4 * BINS * histogram * copies) + labels * of_label


def load_pairs(
    graph: RegionGraph,
    evidence: Evidence,
    *,
    memory_gb: float,
    histogram: bool = False,
    ways: int = 1,
) -> Pairs:
    """Reads a region graph.

    Args:
      graph: with histograms, where one is wanted.
      evidence: which links count.
      memory_gb: that reading and agglomeration may take.
      histogram: whether it is read too.
      ways: to join them, one after another.

    Raises:
      InputError: memory that does not suffice, or a graph without histograms.
    """
    if histogram and graph.bins != BINS:
        raise InputError(
            f"{graph.folder} has no histograms of affinities; remove it and make it again"
        )
    needed = memory_bytes(graph.pairs, graph.labels, histogram=histogram, ways=ways)
    needed /= 1e9
    if needed > memory_gb:
        raise InputError(
            f"agglomeration of {graph.pairs} pairs of {graph.labels} fragments may need "
            f"{needed:.3g} GB, and decode.memory_gb is {memory_gb:g}; raise it, or join "
            "nothing, --config.decode.joins=''"
        )
    wide = np.int32 if max(2 * graph.pairs, graph.labels) < 2**31 else np.int64
    low, high = np.empty(graph.pairs, wide), np.empty(graph.pairs, wide)
    touching = np.empty(graph.pairs, bool)
    number, total = (np.empty(graph.pairs, np.int64) for _ in range(2))
    bins = np.zeros((graph.pairs, BINS), np.int32) if histogram else None
    names, voxels = _labels(graph)
    count = 0
    for block in graph.blocks():
        block = block[block[:, LOW] != block[:, HIGH]]
        block[:, LOW] = np.searchsorted(names, block[:, LOW])
        block[:, HIGH] = np.searchsorted(names, block[:, HIGH])
        found = _of_block(block, graph.bins, evidence)
        end = count + len(found[0])
        for place, values in zip(
            (low, high, touching, number, total), found, strict=True
        ):
            place[count:end] = values
        if bins is not None:
            _fill(bins[count:end], block, found)
        count = end
    return Pairs(
        names,
        low[:count],
        high[:count],
        touching[:count],
        number[:count],
        total[:count],
        voxels,
        None if bins is None else bins[:count],
    )


def _labels(graph: RegionGraph) -> tuple[Int[np.ndarray, " l"], Int[np.ndarray, " l"]]:
    """All labels, and their voxels."""
    names, voxels = (np.empty(graph.labels, np.int64) for _ in range(2))
    count = 0
    for block in graph.blocks():
        own = block[block[:, LOW] == block[:, HIGH]]
        end = count + len(own)
        names[count:end], voxels[count:end] = own[:, LOW], own[:, NUMBER]
        count = end
    return names, voxels


def _of_block(rows: np.ndarray, bins: int, evidence: Evidence):
    """Low, high, touching, number and total of the pairs of some rows that say something."""
    if not len(rows):
        return (np.empty(0, np.int64),) * 5
    pair = rows[:, : HIGH + 1]
    new = np.flatnonzero(np.append(True, (pair[1:] != pair[:-1]).any(1)))
    face = rows[:, KIND] < bins

    def summed(where: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
        number = np.where(where, rows[:, NUMBER], 0)
        total = np.where(where, rows[:, TOTAL], 0) - number * fixed(unit)
        return np.add.reduceat(number, new), np.add.reduceat(total, new)

    faces, said = summed(face, evidence.short)
    touching = faces >= evidence.faces
    number, total = np.where(touching, faces, 0), np.where(touching, said, 0)
    if evidence.long is not None:
        links, said = summed(~face, evidence.long)
        number, total = number + links, total + said
    kept = np.flatnonzero(number)
    low, high = pair[new[kept]].T
    return low, high, touching[kept], number[kept], total[kept]


def _fill(histogram: np.ndarray, rows: np.ndarray, found) -> None:
    """Numbers of common faces by bin, of the pairs that were found."""
    low, high, touching = found[:3]
    if not len(low):
        return
    rows = rows[rows[:, KIND] < BINS]
    width = int(rows[:, HIGH].max(initial=0)) + 1
    width = max(width, int(high.max()) + 1)
    wanted = low * width + high
    at = np.searchsorted(wanted, rows[:, LOW] * width + rows[:, HIGH])
    at = np.minimum(at, len(wanted) - 1)
    same = (low[at] == rows[:, LOW]) & (high[at] == rows[:, HIGH]) & touching[at]
    histogram[at[same], rows[same, KIND]] = rows[same, NUMBER]
