"""Two segmentations of one volume, skeleton by skeleton, or by their scores against labels.

`--mode=compare A.json B.json` takes two evaluations (`eval_*.json`), reads both
segmentations at the nodes again and writes how the second differs from the first. Where
both were scored by dense labels alone, their scores are compared as they are. Neither
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
from nisbjax.store.fingerprint_versions import difference
from nisbjax.store.regions import region_of
from nisbjax.store.schema import anything, list_of, number, optional, table_of, text
from nisbjax.store.volume import Volume, open_labels

_SCORED = {
    "segmentation": text(),
    "segmentation_fingerprint": text(),
    "skeleton": optional(text()),
    "skeleton_sha256": optional(text()),
    "config": table_of(),
    "volume": text(),
    "skeletons": optional(anything()),
    "label": optional(text()),
    "label_fingerprint": optional(text()),
    "dense": optional(table_of(number())),
}
_VOXEL_SIZE = {"data.voxel_size_nm": list_of(number(), 3)}


def run(evaluations: Sequence[str], workdir: str = "") -> dict[str, Any]:
    """Mode compare: writes `compare.{txt,json}` and `compare_skeletons.csv`, and prints.

    By labels there is no table of skeletons.

    Args:
      evaluations: two `eval_*.json`; the second is compared with the first.
      workdir: where to write; "" for the folder of the second.

    Returns:
      What the JSON holds: of `evaluate.paired.Comparison.facts`, or of each score against
      labels `first`, `second` and `difference`; and what was compared.

    Raises:
      InputError: not two evaluations, no scores, one by skeletons and one by labels,
        skeletons or labels of two files, or a segmentation that has changed since.
    """
    if len(evaluations) != 2:
        raise InputError(
            f"--mode=compare names {len(evaluations)} evaluations; wanted two, "
            "eval_A.json eval_B.json"
        )
    paths = [pathlib.Path(path) for path in evaluations]
    first, second = (_read(path) for path in paths)
    by_skeletons = _by_skeletons(first)
    if by_skeletons != _by_skeletons(second):
        other = paths[1] if by_skeletons else paths[0]
        raise InputError(
            f"{other} is scored by labels alone, and the other evaluation by skeletons; "
            "wanted both by one, see --config.evaluate.metrics"
        )
    _require_one_truth(first, second, paths)
    folder = pathlib.Path(workdir) if workdir else paths[1].parent
    for name in ("compare.json", "compare.txt", "compare_skeletons.csv"):
        files.require_file(folder / name)
    called = first["segmentation"], second["segmentation"]
    result = {
        "first": {"evaluation": str(paths[0]), "segmentation": called[0]},
        "second": {"evaluation": str(paths[1]), "segmentation": called[1]},
        "volume": second["volume"],
    }
    if by_skeletons:
        truth, segments = _at_nodes(first, second, paths)
        found = paired.compare(truth, *segments)
        facts = found.facts()
        result |= {"skeleton": second["skeleton"], **facts}
        said = paired.text(facts, *called)
        folder.mkdir(parents=True, exist_ok=True)
        _write_skeletons(found, folder / "compare_skeletons.csv")
    else:
        _segmentations(first, second, paths)
        scores = _differences(first, second, paths)
        result |= {"label": second["label"], "dense": scores}
        said = paired.text_of_labels(scores, *called)
        folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "compare.json", result)
    files.write_text(folder / "compare.txt", said)
    print(said, end="")
    logging.info("wrote %s", folder / "compare.txt")
    return result


def _write_skeletons(found: paired.Comparison, path: pathlib.Path) -> None:
    tables.write_csv(
        {
            "skeleton": found.skeleton_ids,
            "length_nm": np.sqrt(found.weights),
            "nerl_first": found.first,
            "nerl_second": found.second,
            "difference": found.second - found.first,
        },
        path,
    )


def _by_skeletons(facts: dict[str, Any]) -> bool:
    return bool(facts.get("skeletons") and facts.get("skeleton"))


def _require_one_truth(
    first: dict[str, Any], second: dict[str, Any], paths: Sequence[pathlib.Path]
) -> None:
    """Refuses skeletons or labels of two files, and labels that were read in two ways."""
    words = ("skeleton", "skeleton_sha256", "skeletons")
    if not _by_skeletons(first):
        words = ("label", "label_fingerprint", "labels")
        codes = [facts["config"].get("data.unlabeled") for facts in (first, second)]
        if codes[0] != codes[1]:
            raise InputError(
                f"{paths[0]} and {paths[1]} leave out other labels (data.unlabeled: "
                f"{codes[0]!r} and {codes[1]!r}); evaluate both with one"
            )
    path, digest, name = words
    if first.get(digest) != second.get(digest):
        raise InputError(
            f"{paths[0]} and {paths[1]} are scored by different {name} "
            f"({first[path]} and {second[path]}); wanted those of one volume"
        )


def _differences(
    first: dict[str, Any], second: dict[str, Any], paths: Sequence[pathlib.Path]
) -> dict[str, dict[str, float]]:
    """Each score against labels that both have, and the second minus the first."""
    a, b = first["dense"], second["dense"]
    scores = {
        key: {"first": a[key], "second": b[key], "difference": b[key] - a[key]}
        for key in a
        if key in b
    }
    if not scores:
        raise InputError(
            f"{paths[0]} ({', '.join(a)}) and {paths[1]} ({', '.join(b)}) have no score "
            "in common; evaluate both with one --config.evaluate.metrics"
        )
    return scores


def _read(path: pathlib.Path) -> dict[str, Any]:
    facts = records.read_json(path, _SCORED, "wanted an eval_*.json of --mode=evaluate")
    if _by_skeletons(facts):
        records.check(facts["config"], _VOXEL_SIZE, f"config of {path}")
    elif not facts.get("dense") or not facts.get("label_fingerprint"):
        raise InputError(
            f"{path} has no score by skeletons, and none by labels; evaluate with either, "
            "which two segmentations can be compared at"
        )
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
    volumes = _segmentations(first, second, paths)
    part = truth
    found = []
    for labels in volumes:
        part, _ = nodes.in_region(truth, labels)
        found.append(nodes.read_node_segments(labels, part))
    return part, found


def _segmentations(
    first: dict[str, Any], second: dict[str, Any], paths: Sequence[pathlib.Path]
) -> list[Volume]:
    """Both segmentations, unless one is gone, has changed, or is of another region."""
    found = []
    for facts, path in zip((first, second), paths, strict=True):
        named = _found(facts["segmentation"], path)
        if not os.path.exists(named):
            raise InputError(
                f"no segmentation at {named}, which {path} scores; decode it again"
            )
        said = difference(facts["segmentation_fingerprint"], fingerprint(named))
        if said:
            raise InputError(f"{named}, scored in {path}, {said}; evaluate it again")
        found.append(open_labels(named))
    regions = [region_of(labels) for labels in found]
    if regions[0] != regions[1]:
        boxes = " and ".join(f"{box} of {shape}" for box, shape in regions)
        raise InputError(
            f"{paths[0]} and {paths[1]} are of different regions ({boxes}); wanted one"
        )
    return found
