"""Two segmentations of one volume, skeleton by skeleton.

`--mode=compare A.json B.json` takes two evaluations (`eval_*.json`), reads both
segmentations at the nodes again and writes how the second differs from the first. Neither
reference system compares but by eye.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from nisbjax import skeletons
from nisbjax.errors import InputError
from nisbjax.evaluate import nodes, paired, tables
from nisbjax.store import files, records
from nisbjax.store.fingerprint import fingerprint
from nisbjax.store.regions import region_of
from nisbjax.store.schema import anything, list_of, number, optional, table_of, text
from nisbjax.store.volume import open_labels

_SCORED = {
    "segmentation": text(),
    "segmentation_fingerprint": text(),
    "skeleton": optional(text()),
    "skeleton_sha256": optional(text()),
    "config": table_of(),
    "volume": text(),
    "skeletons": optional(anything()),
}
_VOXEL_SIZE = {"data.voxel_size_nm": list_of(number(), 3)}


def run(evaluations: Sequence[str], workdir: str = "") -> dict[str, Any]:
    """Mode compare: writes `compare.{txt,json}` and `compare_skeletons.csv`, and prints.

    Args:
      evaluations: two `eval_*.json`; the second is compared with the first.
      workdir: where to write; "" for the folder of the second.

    Returns:
      What the JSON holds: of `evaluate.paired.Comparison.facts`, and what was compared.

    Raises:
      InputError: not two evaluations, no score by skeletons, skeletons of two files, or a
        segmentation that has changed since.
    """
    if len(evaluations) != 2:
        raise InputError(
            f"--mode=compare names {len(evaluations)} evaluations; wanted two, "
            "eval_A.json eval_B.json"
        )
    paths = [pathlib.Path(path) for path in evaluations]
    first, second = (_read(path) for path in paths)
    if first["skeleton_sha256"] != second["skeleton_sha256"]:
        raise InputError(
            f"{paths[0]} and {paths[1]} are scored by different skeletons "
            f"({first['skeleton']} and {second['skeleton']}); wanted those of one volume"
        )
    folder = pathlib.Path(workdir) if workdir else paths[1].parent
    for name in ("compare.json", "compare.txt", "compare_skeletons.csv"):
        files.require_file(folder / name)
    truth, segments = _at_nodes(first, second, paths)
    found = paired.compare(truth, *segments)
    facts = found.facts()
    result = {
        "first": {"evaluation": str(paths[0]), "segmentation": first["segmentation"]},
        "second": {"evaluation": str(paths[1]), "segmentation": second["segmentation"]},
        "volume": second["volume"],
        "skeleton": second["skeleton"],
        **facts,
    }
    said = paired.text(facts, first["segmentation"], second["segmentation"])
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "compare.json", result)
    tables.write_csv(
        {
            "skeleton": found.skeleton_ids,
            "length_nm": np.sqrt(found.weights),
            "nerl_first": found.first,
            "nerl_second": found.second,
            "difference": found.second - found.first,
        },
        folder / "compare_skeletons.csv",
    )
    files.write_text(folder / "compare.txt", said)
    print(said, end="")
    logging.info("wrote %s", folder / "compare.txt")
    return result


def _read(path: pathlib.Path) -> dict[str, Any]:
    facts = records.read_json(path, _SCORED, "wanted an eval_*.json of --mode=evaluate")
    if not facts.get("skeletons") or not facts.get("skeleton"):
        raise InputError(
            f"{path} has no score by skeletons; evaluate with a skeleton, whose nodes "
            "two segmentations can be compared at"
        )
    records.check(facts["config"], _VOXEL_SIZE, f"config of {path}")
    return facts


def _found(named: str, evaluation: pathlib.Path) -> str:
    """A file that an evaluation names, which may have been written in another folder.

    A relative path is looked for from here, then from every folder that the evaluation
    lies in, then beside it; whether what is there has changed is seen by its content.
    """
    if os.path.exists(named) or skeletons.is_there(named):
        return named
    folders = evaluation.absolute().parents
    places = [] if os.path.isabs(named) else [folder / named for folder in folders]
    places.append(folders[0] / pathlib.Path(named).name)
    found = (str(p) for p in places if p.exists() or skeletons.is_there(p))
    return next(found, named)


def _at_nodes(
    first: dict[str, Any], second: dict[str, Any], paths: Sequence[pathlib.Path]
) -> tuple[skeletons.Skeletons, list[np.ndarray]]:
    """The skeletons, and the segments of both segmentations at their nodes."""
    x, y, z = first["config"]["data.voxel_size_nm"]
    skeleton = _found(first["skeleton"], paths[0])
    if not skeletons.is_there(skeleton):
        raise InputError(
            f"no skeleton at {skeleton}, by which {paths[0]} is scored; put it back"
        )
    if skeletons.content_hash(skeleton) != first["skeleton_sha256"]:
        raise InputError(
            f"{skeleton} has changed since {paths[0]} was written; evaluate again"
        )
    truth = skeletons.load(skeleton, voxel_size_nm=(x, y, z))
    found, regions = [], []
    part = truth
    for facts, path in zip((first, second), paths, strict=True):
        named = _found(facts["segmentation"], path)
        if not os.path.exists(named):
            raise InputError(
                f"no segmentation at {named}, which {path} scores; decode it again"
            )
        if fingerprint(named) != facts["segmentation_fingerprint"]:
            raise InputError(
                f"{named} has changed since {path} was written; evaluate it again"
            )
        labels = open_labels(named)
        part, _ = nodes.in_region(truth, labels)
        regions.append(region_of(labels))
        found.append(nodes.read_node_segments(labels, part))
    if regions[0] != regions[1]:
        boxes = " and ".join(f"{box} of {shape}" for box, shape in regions)
        raise InputError(
            f"{paths[0]} and {paths[1]} are of different regions ({boxes}); wanted one"
        )
    return part, found
