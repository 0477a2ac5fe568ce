"""Dense labels become skeletons: box by box, joined, written as files that evaluations read.

NISB publishes skeletons of its own labels, made elsewhere; here any labelled volume gets
them. A box is kept until all are joined, so that a stage that was stopped goes on.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from absl import logging

from nisbjax.errors import InputError
from nisbjax.geometry import Box
from nisbjax.parallel.cluster import Workers, check_cluster
from nisbjax.skeletonize import outputs
from nisbjax.skeletonize.box_skeletons import (
    BYTES_PER_VOXEL,
    BoxSkeletonizer,
    BoxSkeletons,
    Teasar,
    load,
    require_installed,
    save,
)
from nisbjax.skeletonize.boxes import SharedBox, boxes
from nisbjax.skeletonize.joining import Joined, join
from nisbjax.skeletons import flat_file
from nisbjax.skeletons.formats import MAX_NODES
from nisbjax.store import stored
from nisbjax.store.claims import require_chunks_fit
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.finished import require_finished
from nisbjax.store.lock import writing
from nisbjax.store.manifest import Manifest
from nisbjax.store.volume import Volume, open_labels
from nisbjax.typing import FloatTriple, Section


@dataclasses.dataclass(frozen=True)
class Skeletonizing:
    """What is asked for.

    Attributes:
      section: `skeletonize`.
      labels: path of dense labels [x y z].
      output: path of `skeleton.pkl`; an npz of the same stem is written beside it.
      region: of the volume, x0:x1,y0:y1,z0:z1; "" for all of it.
      voxel_size_nm: x y z.
      unlabeled: labels that say nothing, see `unlabeled.parse_codes`.
      determined_by: keys and values that determine the skeletons, for the record.
      cluster: who works, kind, workers and address.
      redo: what this stage made there is replaced, whatever it was made of.
    """

    section: Section
    labels: str
    output: pathlib.Path
    region: str
    voxel_size_nm: FloatTriple
    unlabeled: str
    determined_by: Mapping[str, Any]
    cluster: Section
    redo: bool = False


def run(asked: Skeletonizing) -> dict[str, Any]:
    """Makes skeletons; an earlier attempt that was stopped goes on.

    Returns:
      labels, dust, without_edge, in_pieces (see `Joined`), nodes, and length_um of all.

    Raises:
      InputError: as `check`, or labels without one that is large enough.
    """
    volume, region, made_from = _planned(asked)
    folder = outputs.parts_folder(asked.output)
    started = time.monotonic()
    with writing(asked.output):
        stay = outputs.remove_others(asked.output, made_from, redo=asked.redo)
        with Manifest(folder, made_from) as manifest:
            for word in stay:  # the folder is ours still
                manifest.note(word)
            manifest.verify()
            wanted = _paths(asked.output, asked.section)
            if not manifest.finished or not all(map(manifest.done, wanted)):
                _make(asked, volume, region, manifest)
                logging.info(
                    "wrote %s in %.1f s", asked.output, time.monotonic() - started
                )
            else:
                logging.info("%s is there, made of these labels", asked.output)
            return manifest.finish_facts


def check(asked: Skeletonizing) -> None:
    """Refuses what `run` would, before anything is written.

    Raises:
      InputError: kimimaro is not installed; labels that are not there or cannot be read; a
        region that is not inside them; a box that does not fit the memory; an output that
        something else made.
    """
    _planned(asked)


def _paths(output: pathlib.Path, section: Section) -> dict[str, pathlib.Path]:
    return outputs.paths(output, section.also)


def _planned(asked: Skeletonizing) -> tuple[Volume, Box, dict[str, Any]]:
    """The labels, the region, and what determines the result."""
    require_installed()
    check_cluster(asked.cluster.kind, asked.cluster.address)
    require_finished(asked.labels)
    volume = open_labels(asked.labels)
    require_chunks_fit(volume, asked.section.memory_gb)
    whole = Box.whole(volume.spatial_shape)
    region = Box.parse(asked.region) if asked.region else whole
    if region.empty or not whole.contains(region):
        raise InputError(
            f"the box {region} is not inside {asked.labels} of shape "
            f"{volume.spatial_shape}; name another one"
        )
    _at_once(asked.section, asked.cluster, region)
    made_from = {
        **asked.determined_by,
        "labels": fingerprint(asked.labels),
        "region": str(region),
        "kimimaro": metadata.version("kimimaro"),
    }
    also = asked.section.also
    outputs.require_ours(asked.output, also, made_from, redo=asked.redo)
    return volume, region, made_from


def _at_once(section: Section, cluster: Section, region: Box) -> int:
    """How many boxes may be under way: as many as processes, if the memory holds them.

    Threads would wait for each other: kimimaro keeps Python's lock.

    Raises:
      InputError: it does not hold one.
    """
    largest = max(box.read.size for box in boxes(region, section.box_shape))
    each = largest * BYTES_PER_VOXEL / 1e9
    most = int(section.memory_gb / each)
    if most < 1:
        raise InputError(
            f"a box of {largest} voxels takes {each:.2g} GB, and skeletonize.memory_gb is "
            f"{section.memory_gb:g}; raise it, or make skeletonize.box_shape smaller"
        )
    if cluster.kind == "threads":
        return 1
    return min(most, cluster.workers or len(os.sched_getaffinity(0)))


def _make(
    asked: Skeletonizing, volume: Volume, region: Box, manifest: Manifest
) -> None:
    """Writes what is missing; boxes are needed where no sound npz holds them, joined."""
    grid = boxes(region, asked.section.box_shape)
    paths = _paths(asked.output, asked.section)
    if manifest.done("npz") and manifest.noted("joined") is not None:
        skeletons = flat_file.read(paths["npz"], MAX_NODES)
    else:
        _skeletonize(asked, volume, region, manifest)
        parts = [load(_path(manifest, box)) for box in grid]
        joined = _joined(asked.section, parts, asked.voxel_size_nm, asked.labels)
        manifest.note("joined", **_facts(joined))
        skeletons = joined.skeletons
    skeletons = dataclasses.replace(skeletons, source=asked.labels)
    for word, path in paths.items():
        if not manifest.done(word):
            names = outputs.names(skeletons, word, path, manifest.artifact)
            # Noted first, so that what a kill leaves is known to be ours.
            manifest.note(word, names=names)
            outputs.write(skeletons, word, path, asked.voxel_size_nm)
            manifest.record(word, outputs.facts(names, manifest.artifact))
    manifest.forget([key for key in manifest.keys if key not in paths])
    facts = dict(manifest.noted("joined") or {})
    facts.pop("note", None)
    manifest.finish(**facts)
    for box in grid:
        pathlib.Path(_path(manifest, box)).unlink(missing_ok=True)


def _skeletonize(
    asked: Skeletonizing, volume: Volume, region: Box, manifest: Manifest
) -> None:
    """Skeletonizes the boxes that are not done."""
    grid = boxes(region, asked.section.box_shape)
    missing = [box for box in grid if not manifest.done(str(box.own))]
    work = BoxSkeletonizer(
        volume,
        _teasar(asked.section),
        asked.voxel_size_nm,
        asked.unlabeled,
    )
    kind, address = asked.cluster.kind, asked.cluster.address
    if kind == "threads" and len(missing) > 1:
        logging.info("one box at a time; --config.cluster.kind=local works on more")
    workers = _at_once(asked.section, asked.cluster, region)
    if kind == "dask":  # a scheduler's workers have a memory of their own
        workers = asked.cluster.workers
    with Workers(kind, workers, address) as team:
        found = team.map(work, missing, "skeletonize")
        for box, part in zip(missing, found, strict=True):
            save(part, _path(manifest, box))
            name = pathlib.Path(_path(manifest, box)).name
            manifest.record(
                str(box.own), {name: stored.of_file(manifest.artifact / name)}
            )


def _teasar(section: Section) -> Teasar:
    return Teasar(section.scale, section.const_nm)


def _path(manifest: Manifest, box: SharedBox) -> str:
    start = "_".join(map(str, box.own.start))
    return str(manifest.artifact / f"box_{start}.npz")


def _joined(
    section: Section, parts: list[BoxSkeletons], voxel_size_nm: FloatTriple, labels: str
) -> Joined:
    """The skeletons of all boxes, joined.

    Raises:
      InputError: there are none.
    """
    joined = join(
        parts, voxel_size_nm, dust_voxels=section.dust_voxels, tick_nm=section.tick_nm
    )
    if not len(joined.skeletons.edges):
        raise InputError(
            f"{labels} has no label of {section.dust_voxels} voxels or more with a skeleton "
            f"({joined.dust} of fewer); lower --config.skeletonize.dust_voxels"
        )
    return joined


def _facts(joined: Joined) -> dict[str, Any]:
    length = float(joined.skeletons.edge_lengths_nm.sum()) / 1000
    return {
        "labels": joined.labels,
        "dust": joined.dust,
        "without_edge": joined.without_edge,
        "in_pieces": joined.in_pieces,
        "nodes": len(joined.skeletons.node_id),
        "length_um": round(length, 3),
    }
