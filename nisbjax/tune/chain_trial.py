"""A trial of the chain from tables: the segments at the skeletons' nodes, for one point.

What `decode.streamed.chain` does box by box with voxels, on the clusters and edges that
`chain_tables` left: the watershed of the edges that depend on the point, the agreement of
boxes by counts that are summed by fragment, and growth in the graphs of the nodes. The
segments are those of a decode, by other numbers.
"""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Int, Integer

from nisbjax.decode import contraction
from nisbjax.decode.chain import LEAST, ChainParameters
from nisbjax.decode.contraction import EdgesLeft
from nisbjax.decode.growth_graph import GrowthGraph, labels_at
from nisbjax.decode.streamed.agreement import agreeing_pairs
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.decode.streamed.layers import NO_PAIRS
from nisbjax.decode.streamed.seam_tree import unite
from nisbjax.parallel.cluster import Workers
from nisbjax.store import npy


@dataclasses.dataclass(frozen=True)
class ChainTrials:
    """Trials of one study, from its tables.

    Attributes:
      folder: of the tables.
      grid: of their boxes.
      nodes: how many.
      dtype: of the affinities.
      threads: at work on boxes.
    """

    folder: pathlib.Path
    grid: BoxGrid
    nodes: int
    dtype: np.dtype
    threads: int

    def segments(self, parameters: ChainParameters) -> Integer[np.ndarray, " n"]:
        """The segment at each node, 1..N in order of first nodes' names, 0 = background.

        Args:
          parameters: in the ranges for which the tables were made.
        """
        indices = range(len(self.grid.boxes))
        with Workers("threads", self.threads) as team:
            made = list(team.map(lambda i: self._fragments(i, parameters), indices))
            counts = [len(sizes) for _, sizes in made]
            starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
            tables = [table for table, _ in made]
            size = np.concatenate([sizes for _, sizes in made])
            pairs = team.map(lambda i: self._united(i, tables, starts), indices)
            ends, others = np.hstack([NO_PAIRS, *pairs])
            count, component = unite(ends, others, len(size))
            whole = np.bincount(component, size, minlength=count)
            anchors = np.where(whole >= parameters.anchor, np.arange(count) + 1, 0)
            labels = anchors[component].astype(np.uint32)
            labels[starts[:-1]] = 0  # background of each box
            parts = zip(tables, starts, strict=False)
            named = np.concatenate([labels[start + table] for table, start in parts])
            before = np.cumsum([0, *map(len, tables)])
            found = np.zeros(self.nodes, np.uint32)
            rule = parameters.low, parameters.margin
            grow = team.map(lambda i: self._grown(i, before, named, rule), indices)
            for rows, grown in grow:
                found[rows] = grown
        values, which = np.unique(np.append(found, 0), return_inverse=True)
        assert values[0] == 0
        return which[:-1].astype(np.uint32)

    def _fragments(
        self, index: int, parameters: ChainParameters
    ) -> tuple[Integer[np.ndarray, " c"], Int[np.ndarray, " f"]]:
        """The fragment of each cluster of a box, and the voxels of each in the box.

        Fragment 0 is background.
        """
        with npy.Archive(self.folder / f"{index}.npz") as arrays:
            size, core = arrays["size"], arrays["core"]
            shorts, longs = (
                EdgesLeft(*(arrays[f"{sort}_{name}"] for name in EdgesLeft._fields))
                for sort in ("short", "long")
            )
        root = contraction.components(
            (shorts, longs), len(size) - 1, parameters.attract, parameters.repel
        )
        voxels = np.bincount(root, size, minlength=len(size))
        inside = np.bincount(root, core, minlength=len(size)).astype(np.int64)
        kept = (voxels >= LEAST) & (inside > 0)
        kept[0] = False
        number = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
        return number[root], np.concatenate([[0], inside[kept]])

    def _united(
        self, index: int, tables: list[np.ndarray], starts: list[int]
    ) -> Int[np.ndarray, "2 n"]:
        """Fragments of a box and of those behind it that are one, in the volume."""
        found = [NO_PAIRS]
        with npy.Archive(self.folder / f"{index}.nodes.npz") as arrays:
            for axis in range(3):
                behind = self.grid.neighbour(index, axis, 1)
                if behind is None:
                    continue
                one, other, voxels = arrays[f"face{axis}"].astype(np.int64)
                a = tables[index][one].astype(np.int64)
                b = tables[behind][other].astype(np.int64)
                pairs = agreeing_pairs(a, b, voxels)
                found.append(pairs + np.array([[starts[index]], [starts[behind]]]))
        return np.hstack(found)

    def _grown(
        self,
        index: int,
        before: Int[np.ndarray, " b"],
        named: Integer[np.ndarray, " c"],
        rule: tuple[float, float],
    ) -> tuple[Int[np.ndarray, " n"], Integer[np.ndarray, " n"]]:
        """Nodes of a box, and the fragments that have grown to them.

        Args:
          before: clusters in the boxes before each one.
          named: the fragment of each cluster, 0 where it does not grow.
          rule: `low` and margin.
        """
        with npy.Archive(self.folder / f"{index}.nodes.npz") as arrays:
            rows = arrays["nodes"]
            if not len(rows):
                return rows, np.empty(0, np.uint32)
            cluster = before[arrays["owner"]] + arrays["cluster"]
            edges = (arrays[name] for name in GrowthGraph._fields[1:])
            graph = GrowthGraph(np.empty(0, np.int64), *edges)
            wanted = arrays["node"]
        return rows, labels_at(wanted, graph, cluster, named, self.dtype, rule)
