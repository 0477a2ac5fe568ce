"""What the trials of a study of the chain share, made once: tables instead of voxels.

Each box of the streamed chain, with its halo, is contracted for the ranges of the study
(`contraction`), which leaves clusters of voxels and edges between them. Beside these a box
keeps the sizes of its clusters, how many voxels each two clusters of two boxes share around
a face, and what labels must know to grow to the skeletons' nodes (`growth_graph`). A trial
(`chain_trial`) needs nothing else. PyTC and BANIS decode the volume for each point.

    tables-<fingerprint>/     there as a whole or not at all
        0.npz ...             clusters of a box, and edges between them
        0.nodes.npz ...       its faces and nodes
        checksums.json
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from nisbjax.decode import contraction
from nisbjax.decode.chain import ChainParameters
from nisbjax.decode.channels import short_range, with_offsets
from nisbjax.decode.contraction import Biases
from nisbjax.decode.growth_graph import growth_graph
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed import boxes, scratch
from nisbjax.decode.streamed.chain import grid_of, halo_of, parts_of
from nisbjax.decode.streamed.fragments import overlap_at, runs
from nisbjax.decode.streamed.grid import BoxGrid
from nisbjax.parallel.cluster import Workers
from nisbjax.store import files, npy
from nisbjax.store.volume import Volume
from nisbjax.tune.trials import Range
from nisbjax.typing import Triple

TUNED = ("attract", "repel", "anchor", "low", "margin")
CHECKSUMS = "checksums.json"
_MEASURED = (
    "contracted"  # ends the names of what is left of a box before faces are compared
)


@dataclasses.dataclass(frozen=True)
class TableMaker:
    """Makes the tables of one study.

    Attributes:
      affinities: [c x y z], float16 or uint8.
      edges: which of them count.
      nodes: [n 3], voxels of the skeletons' nodes.
      parameters: of the chain; those that are not tuned count.
      ranges: lowest and highest value of those that are.
      box_shape: of the boxes; None = as a decode has them.
    """

    affinities: Volume
    edges: MaskedEdges
    nodes: Int[np.ndarray, "n 3"]
    parameters: ChainParameters
    ranges: Mapping[str, Range]
    box_shape: Triple | None = None

    @functools.cached_property
    def grid(self) -> BoxGrid:
        return grid_of(self.affinities, None, self.box_shape)

    @functools.cached_property
    def halo(self) -> int:
        return halo_of(self.affinities, None)

    def ends(self, name: str) -> tuple[float, float]:
        """Lowest and highest value of a parameter."""
        value = getattr(self.parameters, name)
        low, high = self.ranges.get(name, (value, value))
        return float(low), float(high)

    def name(self, made_from: Mapping[str, Any]) -> str:
        """Of the folder, by everything that the tables follow from."""
        facts = {
            "made_from": made_from,
            "ends": {name: self.ends(name) for name in TUNED},
            "box_shape": self.grid.box_shape,
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        return "tables-" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def make(self, folder: pathlib.Path, at_once: int) -> None:
        """Writes the tables of all boxes.

        Args:
          folder: theirs; made.
          at_once: boxes.
        """
        grid = self.grid
        clusters = scratch.open_labels(folder, grid.shape, parts_of(grid))
        indices = range(len(grid.boxes))
        with Workers("threads", at_once) as team:
            contracting = _Contracting(self, clusters, folder)
            list(team.map(contracting, indices, "contract"))
            list(team.map(_Comparing(self, clusters, folder), indices, "compare"))
        shutil.rmtree(clusters.source)
        for path in folder.glob(f"*.{_MEASURED}.npz"):
            path.unlink()
        files.write_json(folder / CHECKSUMS, _checksums(folder))


def problem_of(folder: pathlib.Path) -> str:
    """What is wrong with tables that were made; "" for nothing."""
    try:
        wanted = json.loads((folder / CHECKSUMS).read_bytes())
        found = _checksums(folder)
    except (OSError, ValueError) as error:
        return str(error)
    return "" if found == wanted else "another checksum"


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    paths = sorted(folder.glob("*.npz"))
    return {path.name: scratch.checksum_of_file(path) for path in paths}


def at_once(affinities: Volume, memory_gb: float, cores: int) -> int:
    """How many boxes may be contracted at the same time; 0 where one takes too much."""
    grid, halo = grid_of(affinities, None, None), halo_of(affinities, None)
    voxels = 1
    for size, whole in zip(grid.box_shape, grid.shape, strict=True):
        voxels *= min(size + 2 * halo, whole)
    channels = len(with_offsets(affinities)[1])
    needed = contraction.memory_bytes(affinities.dtype, voxels, channels)
    return int(min(memory_gb * 1e9 // needed, cores))


@dataclasses.dataclass(frozen=True)
class _Contracting:
    """Contracts a box and its halo, and keeps what lies in the box and at its faces."""

    maker: TableMaker
    clusters: Volume
    folder: pathlib.Path

    def __call__(self, index: int) -> None:
        maker, grid = self.maker, self.maker.grid
        box, region = grid.boxes[index], grid.around(index, maker.halo)
        every, offsets = with_offsets(maker.affinities)
        values = every.read((slice(None), *region.slices))
        biases = Biases(maker.ends("attract"), maker.ends("repel"))
        edges = maker.edges.inside(region)
        clusters, shorts, longs = contraction.contract(values, offsets, biases, edges)
        del values
        count = int(clusters.max(initial=0)) + 1
        core = np.ascontiguousarray(clusters[box.relative_to(region.start).slices])
        record = {
            name: np.bincount(found.reshape(-1), minlength=count).astype(np.uint32)
            for name, found in (("size", clusters), ("core", core))
        }
        for sort, left in (("short", shorts), ("long", longs)):
            record |= {f"{sort}_{k}": v for k, v in left._asdict().items()}
        self.clusters.write(box, core)
        boxes.save(self.folder / f"{index}.npz", record)
        around = {}
        for axis, side in grid.seams(index):
            overlap = overlap_at(grid, index, axis, side)
            found = clusters[overlap.relative_to(region.start).slices]
            starts, named = runs(found)
            around[f"starts{axis}{side}"], around[f"labels{axis}{side}"] = starts, named
        boxes.save(self.folder / f"{index}.{_MEASURED}.npz", around)


@dataclasses.dataclass(frozen=True)
class _Comparing:
    """Counts what a box shares with those behind it; finds the edges to its nodes."""

    maker: TableMaker
    clusters: Volume
    folder: pathlib.Path

    def __call__(self, index: int) -> None:
        grid = self.maker.grid
        record = {}
        own = npy.Archive(self.folder / f"{index}.{_MEASURED}.npz")
        for axis in range(3):
            behind = grid.neighbour(index, axis, 1)
            if behind is None:
                continue
            other = npy.Archive(self.folder / f"{behind}.{_MEASURED}.npz")
            record[f"face{axis}"] = _shared(
                (own[f"starts{axis}-1"], own[f"labels{axis}-1"]),
                (other[f"starts{axis}0"], other[f"labels{axis}0"]),
            )
        box = grid.boxes[index]
        inside = (self.maker.nodes >= box.start) & (self.maker.nodes < box.stop)
        rows = np.flatnonzero(inside.all(axis=1))
        record["nodes"] = rows
        record |= self._growth(index, rows) if len(rows) else {}
        boxes.save(self.folder / f"{index}.nodes.npz", record)

    def _growth(self, index: int, rows: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        """The graph of a box's nodes, and which cluster of which box each voxel is in."""
        maker, grid = self.maker, self.maker.grid
        region = grid.around(index, maker.halo)
        least = max(int(maker.ends("anchor")[1]), 2)
        clusters = self.clusters.read(region)
        owner = np.empty(region.shape, np.uint32)
        fixed = np.empty(region.shape, bool)
        for other in grid.meeting(region):
            met = grid.boxes[other].intersect(region).relative_to(region.start).slices
            with npy.Archive(self.folder / f"{other}.npz") as arrays:
                core = arrays["core"]
            large = core >= least
            large[0] = False
            owner[met] = other
            fixed[met] = large[clusters[met]]
        short, offset = short_range(maker.affinities, maker.edges.edge_offset)
        edges = maker.edges.stored_at(offset).inside(region)
        wanted = np.ravel_multi_index(
            tuple((maker.nodes[rows] - region.start).T), region.shape
        )
        graph = growth_graph(
            boxes.read_channels(short, region),
            fixed,
            np.asarray(wanted),
            (maker.ends("low")[0], maker.ends("margin")[1]),
            edges,
        )
        return {
            "owner": owner.reshape(-1)[graph.voxels],
            "cluster": clusters.reshape(-1)[graph.voxels],
            **{k: v for k, v in graph._asdict().items() if k != "voxels"},
            "node": np.atleast_1d(np.searchsorted(graph.voxels, wanted)),
        }


def _shared(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> np.ndarray:
    """Clusters of two boxes around a face and the voxels that are in both, [3 n]."""
    cuts = np.union1d(one[0], other[0])
    voxels = np.diff(cuts.astype(np.int64))
    a, b = (
        labels[np.searchsorted(starts, cuts[:-1], side="right") - 1].astype(np.uint64)
        for starts, labels in (one, other)
    )
    pairs, which = np.unique(a << np.uint64(32) | b, return_inverse=True)
    counts = np.bincount(which, voxels).astype(np.uint32)
    low = (pairs & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return np.stack([(pairs >> np.uint64(32)).astype(np.uint32), low, counts])
