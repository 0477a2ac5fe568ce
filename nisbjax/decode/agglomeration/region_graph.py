"""The region graph of a segmentation: which fragments are linked, and what affinities say.

Each box of the volume is counted by itself, into a sorted table; the tables are merged on
disk. An affinity belongs to the box that stores it, so each is read once and only labels are
read beyond a box; sums are whole numbers, so the graph depends on no boxes, no workers and no
order. waterz and `elf` hold volume and graph in memory.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax.decode.agglomeration import tables
from nisbjax.decode.agglomeration.box_links import LabelCounter, LinkReader
from nisbjax.decode.agglomeration.counting import HIGH, LOW
from nisbjax.decode.agglomeration.evidence import BINS
from nisbjax.decode.channels import with_offsets
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.streamed.grid import choose_box
from nisbjax.decode.streamed.schedule import Schedule
from nisbjax.decode.streamed.scratch import checksum_of_file
from nisbjax.errors import InputError
from nisbjax.geometry import Box, box_grid
from nisbjax.parallel import cluster
from nisbjax.store import files
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume
from nisbjax.typing import Triple

_TABLE = "links.rows"
_BOXES = "boxes"  # a folder of their tables
_BLOCK = 1 << 18  # rows
_FACTS = ("rows", "pairs", "labels")
_MERGED = 5 * tables.ROW_BYTES  # bytes for each row that is merged at once


@dataclasses.dataclass(frozen=True)
class RegionGraph:
    """A finished region graph on disk.

    Attributes:
      folder: that holds it.
      bins: of the affinities of common faces, 1 or 256; KINDs below it are common faces,
        those from it on long-range channels in their order.
      rows: of its table.
      pairs: of labels that are linked.
      labels: how many there are.
    """

    folder: pathlib.Path
    bins: int
    rows: int
    pairs: int
    labels: int

    def blocks(self, rows_at_once: int = _BLOCK) -> Iterator[tables.Rows]:
        """Rows as `count_links` has them, ascending, a pair's all in one block."""
        return tables.blocks(self.folder / _TABLE, rows_at_once)


def region_graph(
    labels: Volume,
    affinities: Volume,
    folder: pathlib.Path,
    *,
    memory_gb: float,
    histograms: bool = False,
    edges: MaskedEdges | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
) -> RegionGraph:
    """Makes the region graph of a file of labels, or what is left undone of it.

    Args:
      labels: [x y z], 0 = background, below 2^63.
      affinities: [c x y z], their channels by the offsets that the file names; the edges to
        the next voxel are common faces, all others long-range links.
      folder: receives the graph.
      memory_gb: for everything that is held at once; in each worker of a cluster.
      histograms: whether common faces are counted by 256 bins of their affinities.
      edges: which of them count; all, stored at their source, where None.
      fingerprint: of labels and affinities, noted in the manifest.
      schedule: of those who count, and of their boxes.

    Raises:
      InputError: labels or a mask of another shape, an edge to the next voxel that is
        missing, or a folder that holds the graph of something else.
    """
    edges = edges or MaskedEdges()
    schedule = schedule or Schedule()
    if labels.spatial_shape != affinities.spatial_shape:
        raise InputError(
            f"labels {labels.source} {labels.spatial_shape} do not match affinities "
            f"{affinities.spatial_shape}; decode those affinities"
        )
    edges.require_shape(labels.spatial_shape)
    affinities, offsets = with_offsets(affinities)
    made_from = {
        "region_graph": [list(offset) for offset in offsets],
        "histograms": histograms,
        "edge_offset": edges.edge_offset,
        "mask_edges": edges.mask_edges,
        **(fingerprint or {}),
    }
    with Manifest(folder, made_from) as manifest:
        box_shape = _box_shape(manifest, labels, affinities, memory_gb, schedule)
        boxes = tuple(box_grid(labels.spatial_shape, box_shape))
        reader = LinkReader(offsets, BINS if histograms else 1, edges)
        counter = LabelCounter(labels, affinities, boxes, reader)
        with schedule.team() as team:
            return complete(
                manifest, counter, boxes, reader.bins, memory_gb=memory_gb, team=team
            )


def complete(
    manifest: Manifest,
    count: Callable[[int], tables.Rows],
    boxes: Sequence[Box],
    bins: int,
    *,
    memory_gb: float,
    team: cluster.Workers,
) -> RegionGraph:
    """Makes what is left undone of a region graph.

    Args:
      manifest: of its folder, open.
      count: the sorted table of the box of an index; sent to workers.
      boxes: of the volume, disjoint; their order is that of the indices.
      bins: of the affinities of common faces.
      memory_gb: that merging may take.
      team: counts.
    """
    folder = manifest.artifact
    _forget_damaged(manifest)
    if not manifest.finished:
        write = _TableWriter(count, folder / _BOXES)
        _count(write, boxes, manifest, team)
        _merge(write, len(boxes), manifest, memory_gb)
    shutil.rmtree(folder / _BOXES, ignore_errors=True)
    facts = manifest.finish_facts
    return RegionGraph(folder, bins, **{name: facts[name] for name in _FACTS})


@dataclasses.dataclass(frozen=True)
class _TableWriter:
    """`writer(index)` writes the table of one box, and says what it wrote."""

    count: Callable[[int], tables.Rows]
    folder: pathlib.Path

    def __call__(self, index: int) -> dict[str, Any]:
        path = self.path(index)
        tables.write(path, self.count(index))
        return {"table": checksum_of_file(path)}

    def path(self, index: int) -> pathlib.Path:
        return self.folder / f"{index}.rows"


def _count(
    write: _TableWriter,
    boxes: Sequence[Box],
    manifest: Manifest,
    team: cluster.Workers,
) -> None:
    """Writes the tables of the boxes of which no attempt has left one."""
    names = [f"links {box}" for box in boxes]
    missing = [
        i
        for i, name in enumerate(names)
        if not manifest.done(name)
        or not _sound(write.path(i), manifest.facts(name).get("table"))
    ]
    write.folder.mkdir(exist_ok=True)
    for i, facts in zip(missing, team.map(write, missing, "links"), strict=True):
        manifest.record(names[i], **facts)


def _merge(
    write: _TableWriter, count: int, manifest: Manifest, memory_gb: float
) -> None:
    """Makes one table of those of all boxes."""
    found = [write.path(i) for i in range(count)]
    merged = write.folder / _TABLE  # beside them: all is removed at once
    at_once = max(1, int(memory_gb * 1e9 / _MERGED))
    rows = tables.merge(found, merged, rows_at_once=at_once)
    pairs = labels = 0
    for block in tables.blocks(merged, _BLOCK):
        low, high = block[:, LOW], block[:, HIGH]
        new = np.append(True, (low[1:] != low[:-1]) | (high[1:] != high[:-1]))
        pairs += int((new & (low != high)).sum())
        labels += int((low == high).sum())
    checksum = checksum_of_file(merged)
    merged.replace(manifest.artifact / _TABLE)
    files.sync(manifest.artifact)
    manifest.finish(rows=rows, pairs=pairs, labels=labels, table=checksum)


def _forget_damaged(manifest: Manifest) -> None:
    """A finished graph whose table is lost or changed is made again."""
    if not manifest.finished:
        return
    path = manifest.artifact / _TABLE
    if not _sound(path, manifest.finish_facts.get("table")):
        logging.warning("%s is missing or damaged; it is made again", path)
        manifest.forget(manifest.keys)


def _sound(path: pathlib.Path, checksum: object) -> bool:
    """Whether a table is there, with this checksum."""
    try:
        return checksum_of_file(path) == checksum
    except OSError:
        return False


def _box_shape(
    manifest: Manifest,
    labels: Volume,
    affinities: Volume,
    memory_gb: float,
    schedule: Schedule,
) -> Triple:
    """That of the attempt that is resumed; else as asked for, or as memory allows."""
    noted = manifest.noted("boxes")
    if noted is not None:
        x, y, z = noted["shape"]
        return x, y, z
    # Affinities, what they are read from and codes of float32; labels twice, a mask.
    channels, itemsize = affinities.shape[0], affinities.dtype.itemsize
    need = float(channels * (2 * itemsize + 4 * (itemsize == 4)))
    need += 3 * labels.dtype.itemsize + 4
    shape = schedule.box_shape or choose_box(affinities, need, memory_gb, output=labels)
    manifest.note("boxes", shape=list(shape))
    return shape
