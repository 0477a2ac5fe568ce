"""Tuning of the decoder on the validation volume: study, best parameters, curve.

PyTC's `tune` mode and BANIS's threshold loop. Both decode the whole volume once for each
threshold, PyTC without the mask that testing applies; here one pass over the affinities
gives the segments at the skeleton nodes for every threshold, under the mask of testing.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from absl import logging

from nisbjax import config as config_lib
from nisbjax import skeletons
from nisbjax.artifacts import TuneDir
from nisbjax.decode import stage as decode_stage
from nisbjax.decode.masked_edges import MaskedEdges
from nisbjax.decode.methods import METHODS
from nisbjax.decode.thresholds import sweep
from nisbjax.errors import InputError
from nisbjax.evaluate import nerl, nodes
from nisbjax.evaluate import score_text as report
from nisbjax.keys import determines
from nisbjax.keys.checks import require
from nisbjax.keys.ranges import RANGES
from nisbjax.mask import ImageSource, MaskSource, MaskSpec
from nisbjax.store import files, finished, records, schema
from nisbjax.store import volume as volume_lib
from nisbjax.store.volume import Volume
from nisbjax.tune import figure, place, space, storage, study, trials

Parameters = Mapping[str, float | int]
Decode = Callable[[Parameters], str | os.PathLike[str]]

# PyTC's files have more, and not all of these.
_BEST_PARAMS = {
    "decoding_params": schema.record({"threshold": schema.number(0, 1)}),
    "decoding_function": schema.optional(schema.text()),
    "test_data_used": schema.optional(schema.boolean()),
}


def run(
    config: Any,
    out: TuneDir,
    *,
    prediction: str | os.PathLike[str],
    skeleton: str | os.PathLike[str],
    mask: MaskSource | None = None,
    image: ImageSource | None = None,
    decode: Decode | None = None,
) -> dict[str, Any]:
    """Completes the study and writes `best_params.yaml` and `tune.png`.

    Run again, it evaluates only what is missing, and appends.

    Args:
        config: `tune.*`, `decode.*`, `data.*`.
        out: the study's folder.
        prediction: affinities [c x y z] of the validation volume.
        skeleton: its `skeleton.pkl`.
        mask: of the same volume, made as testing makes its own; None for none.
            `decode.affinity_mask=` (none) holds here too.
        image: of the same volume, where the mask has a border ring.
        decode: a whole decode with other values of `decode.*`, for what the one pass
            does not know: other methods, `min_size`, other parameters in `tune.space`.
            Takes `{"threshold": 0.7, "min_size": 100}`, returns the segmentation's path.

    Returns:
        What `best_params.yaml` holds.

    Raises:
        InputError: inputs that are missing or do not fit, the test volume without
            `tune.allow_test_data`, a study that is damaged, busy or of other inputs, or
            trials that failed.
    """
    started = time.monotonic()
    kind = config.tune.sampler
    ranges, wanted = check(config)
    if not config_lib.optional(config.decode.affinity_mask):
        mask = None
    finished.require_finished(prediction)
    affinities = volume_lib.open_affinities(prediction)
    source = affinities.attributes.get("source", "")
    on_test = guard_test_data(config, skeleton, source)
    truth = skeletons.load(skeleton, cache=out.path, voxel_size_nm=_voxel_size(config))
    truth, part = nodes.in_region(truth, affinities)
    edges = MaskedEdges(
        decode_stage.edge_offset(config.data.edge_stored_at, affinities),
        mask,
        image,
        config.decode.mask_edges,
    )
    made_from = _made_from(config, prediction, skeleton, mask, ranges)
    where = config_lib.optional(config.tune.storage)
    where = where or str(out.database(config.tune.study))
    # what follows a node's segment from the forest needs no decoded volume
    plain = config.decode.method == "affinity_cc" and not config.decode.min_size
    if decode is None and not (plain and set(ranges) == {"threshold"}):
        raise InputError(
            f"tuning {sorted(ranges)} with decode.method="
            f"{config.decode.method} and decode.min_size={config.decode.min_size} needs a "
            "whole decode for each trial; run it by --mode=tune"
        )

    def decoded(parameters: Parameters) -> np.ndarray:
        assert decode is not None
        labels = volume_lib.open_labels(decode(parameters))
        return nodes.read_node_segments(labels, truth)

    def segments_at(values: list[Any]) -> Iterable[np.ndarray]:
        if not plain or set(ranges) != {"threshold"}:
            points = (v if isinstance(v, Mapping) else {"threshold": v} for v in values)
            return (decoded(point) for point in points)
        thresholds = values
        logging.info("one pass over %s for thresholds %s", prediction, thresholds)
        return sweep.nodes_by_threshold(
            affinities,
            truth.index_position,
            tuple(thresholds),
            edges=edges,
            memory_gb=config.decode.memory_gb,
        )

    def score(segments: np.ndarray) -> dict[str, float | int]:
        return nerl.score(truth, segments)

    def score_of(parameters: Parameters) -> dict[str, float | int]:
        if plain and set(parameters) == {"threshold"}:
            return score(*segments_at([float(parameters["threshold"])]))
        return score(decoded(parameters))

    with storage.reserved(where, alone=kind == "grid") as reservation:
        opened = storage.open_study(
            where, config.tune.study, made_from, study.sampler(kind, config.seed)
        )
        with storage.clear_errors(where):
            study.require_like(opened, ranges, on_grid=kind == "grid")
            if reservation.alone:
                study.release_orphans(
                    opened, retry=True, every_host=reservation.one_host
                )
            if kind == "grid":
                done = study.run_grid(opened, wanted, segments_at, score)
            else:
                reservation.share()
                first = {name: config.decode[name] for name in ranges}
                done = study.run_sampled(
                    opened,
                    ranges,
                    first,
                    config.tune.trials,
                    score_of,
                    space.AT_MOST.get(config.decode.method),
                    reservation.turn,
                )
            # In turn, so that who writes last has seen every trial.
            turn = out.best_params.with_name(out.best_params.name + ".lock")
            with storage.in_turn(turn):
                result = _conclude(config, opened, where, made_from, on_test, part)
                _write(out, opened, result)
    logging.info(
        "tuned: %d trials evaluated, %d complete, best %s, in %.1f s; wrote %s",
        done,
        len(study.complete(opened)),
        result["decoding_params"],
        time.monotonic() - started,
        out.best_params,
    )
    return result


def check_study(
    config: Any,
    out: TuneDir,
    skeleton: str | os.PathLike[str],
    prediction: str | os.PathLike[str] = "",
) -> None:
    """Refuses what `run` would, as far as it can be known, and writes nothing.

    Args:
        config, out, skeleton: as `run`.
        prediction: as `run`; "" where there is none yet.

    Raises:
        InputError: as `run`.
    """
    ranges, _ = check(config)
    for path in (out.best_params, out.figure):
        files.require_file(path)
    cache = out.path if out.path.is_dir() else None
    truth = skeletons.load(skeleton, cache=cache, voxel_size_nm=_voxel_size(config))
    facts = _made_from(config, prediction, skeleton, None, ranges)
    del facts["mask"]
    if prediction:
        finished.require_finished(prediction)
        nodes.in_region(truth, volume_lib.open_affinities(prediction))
    else:
        del facts["prediction"]
    where = config_lib.optional(config.tune.storage)
    where = where or str(out.database(config.tune.study))
    storage.require_fitting(where, config.tune.study, facts)


def check(config: Any) -> tuple[dict[str, trials.Range], list[Any]]:
    """What a study varies, if its settings can be; asked before anything is written.

    Args:
        config: `tune.*`, `decode.*`.

    Returns:
        Ends of each parameter, and the points of the grid (none for a sampler).

    Raises:
        InputError: of `space.ranges` and `space.points`; another method or sampler; or a
            storage that can hold no study.
    """
    kind = config.tune.sampler
    config_lib.require_choice("decode.method", config.decode.method, METHODS)
    config_lib.require_choice("tune.sampler", kind, study.SAMPLERS)
    ranges = space.ranges(config)
    where = config_lib.optional(config.tune.storage)
    if where:
        place.require_place(where)
    return ranges, space.points(config) if kind == "grid" else []


def read_best_params(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a finished tuning chose: `decoding_params` and where they come from.

    Raises:
        InputError: no such file, or one without a threshold.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no tuned parameters at {path}; run --mode=tune first")
    return records.read_yaml(path, _BEST_PARAMS, "run --mode=tune again")


def tuned_parameters(
    config: Any, best: Mapping[str, Any], path: str | os.PathLike[str]
) -> dict[str, float | int]:
    """The keys of `decode` that a study chose, for the method of the configuration.

    What this project's decoders do not take (PyTC's files name backends) is left out, with
    a warning.

    Args:
        config: key `decode.method`.
        best: what `best_params.yaml` holds.
        path: where it stands, for messages.

    Raises:
        InputError: it is of another method, or a value is none that its key takes.
    """
    method = config.decode.method
    records.check(best, _BEST_PARAMS, str(path), "run --mode=tune again")
    function = best.get("decoding_function", method)
    if function.removeprefix("decode_") != method:
        raise InputError(
            f"{path} is of decode.method={function}, and decode.method is {method}; set "
            f"--config.decode.method={function}, or run --mode=tune"
        )
    found = best["decoding_params"]
    known = ("threshold", "min_size", *METHODS[method].parameters)
    unknown = sorted(str(key) for key in found if key not in known)
    if unknown:
        logging.warning("%s: %s are no parameters of %s", path, unknown, method)
    chosen = {}
    for key in known:
        if key not in found:
            continue
        value = found[key]
        if isinstance(config.decode[key], int) and isinstance(value, float):
            value = int(value) if value.is_integer() else value  # PyTC's 5.0
        require(f"{path}: {key}", value, RANGES[f"decode.{key}"])
        chosen[key] = type(config.decode[key])(value)
    return chosen


def guard_test_data(
    config: Any,
    skeleton: str | os.PathLike[str],
    image: str | os.PathLike[str] = "",
) -> bool:
    """Whether skeletons or image are the test volume's, which needs an explicit word.

    Raises:
        InputError: they are, without `tune.allow_test_data`.
    """
    root, test = Path(config.data.root), config.data.test
    same = _same_file(skeleton, root / test.skeleton) and str(skeleton)
    if not same and image and os.path.exists(image):
        same = os.path.realpath(image) == os.path.realpath(root / test.image)
        same = same and str(image)
    if same and not config.tune.allow_test_data:
        raise InputError(
            f"{same} belongs to the test volume, which thresholds are not chosen on; "
            "name the validation volume, or set --config.tune.allow_test_data=True, "
            "which the results will say"
        )
    return bool(same)


def _same_file(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    both = Path(a).is_file() and Path(b).is_file()
    return both and skeletons.content_hash(a) == skeletons.content_hash(b)


def _voxel_size(config: Any) -> tuple[float, float, float]:
    x, y, z = map(float, config.data.voxel_size_nm)
    return x, y, z


def _made_from(
    config: Any,
    prediction: str | os.PathLike[str],
    skeleton: str | os.PathLike[str],
    mask: MaskSource | None,
    ranges: Mapping[str, trials.Range],
) -> dict[str, Any]:
    """What the scores of a study depend on, apart from its parameters."""
    if isinstance(mask, MaskSpec):
        masked: Any = dataclasses.asdict(mask) | {"shape": list(mask.shape)}
    elif isinstance(mask, Volume):
        masked = volume_lib.fingerprint(mask.source)
    else:
        masked = "none" if mask is None else "array"
    fixed = determines.facts(config, "study")
    return {
        "prediction": volume_lib.fingerprint(prediction) if prediction else "",
        "skeleton": skeletons.content_hash(skeleton),
        "mask": masked,
        "metric": "nerl",
        "parameters": sorted(ranges),
        **{k: v for k, v in fixed.items() if k.removeprefix("decode.") not in ranges},
    }


def _conclude(
    config: Any,
    opened: optuna.Study,
    where: str,
    made_from: Mapping[str, Any],
    on_test: bool,
    part: str,
) -> dict[str, Any]:
    top = study.best(opened)
    found = study.warnings(opened) + [part] * bool(part)
    if on_test:
        found.append("the threshold was chosen on test data: not a test result")
    for warning in found:
        logging.warning(warning)
    score = {"nerl": top.value, **top.user_attrs}
    logging.info("best %s: %s", _parameters(config) | top.params, report.summary(score))
    return {
        "best_trial": top.number,
        "best_value": top.value,
        "metric": "nerl",
        "decoding_function": config.decode.method,
        "decoding_params": _parameters(config) | top.params,
        "scores": {k: v for k, v in score.items() if k in ("nerl", *trials.ATTRIBUTES)},
        "warnings": found,
        "test_data_used": on_test,
        "study": opened.study_name,
        "storage": where,
        "trials_complete": len(study.complete(opened)),
        "made_from": dict(made_from),
    }


def _parameters(config: Any) -> dict[str, float | int]:
    """What the method decodes with besides its threshold, where that is configured."""
    names = METHODS[config.decode.method].parameters
    names += ("min_size",) * bool(config.decode.min_size)
    return {name: config.decode[name] for name in names}


def _write(out: TuneDir, opened: optuna.Study, result: Mapping[str, Any]) -> None:
    """The figure first: who finds best_params.yaml finds everything."""
    rows = [
        {"threshold": t.params["threshold"], "nerl": t.value or 0.0, **t.user_attrs}
        for t in study.complete(opened)
    ]
    rows.sort(key=lambda row: row["threshold"])
    for row in rows:
        logging.info("threshold %.4g: %s", row["threshold"], report.summary(row))
    out.path.mkdir(parents=True, exist_ok=True)
    alone = all(set(t.params) == {"threshold"} for t in study.complete(opened))
    best = result["decoding_params"]["threshold"]
    figure.draw(rows, best, out.figure, connected=alone)
    text = yaml.dump(dict(result), Dumper=_Dumper, sort_keys=False)
    files.write_text(out.best_params, text)


class _Dumper(yaml.SafeDumper):
    """Writes what stands in two places twice: readers refuse aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
