"""Several trainings of one recipe as the leaderboard wants them: mean, spread, interval.

NISB asks for the mean and the 95 % confidence interval of five trainings that differ in
their seed, thresholds chosen on the validation cube. PyTC's README quotes an interval of
the leaderboard as its own standard deviation; here both are computed and named.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from scipy import stats

from nisbjax.errors import InputError
from nisbjax.evaluate import score_text
from nisbjax.keys import determines
from nisbjax.store import files, records
from nisbjax.store.schema import (
    Schema,
    anything,
    either,
    nothing,
    number,
    optional,
    table_of,
    text,
    whole,
)

CONFIDENCE = 0.95
# Key of a score -> name, unit's factor, digits.
METRICS = {
    "nerl": ("NERL [%]", 100, 2),
    "nerl_mean": ("mean over skeletons [%]", 100, 2),
    "adapted_rand_error": ("adapted Rand error", 1, 4),
    "voi_sum": ("VOI [bit]", 1, 3),
    "voi_split": ("VOI split", 1, 3),
    "voi_merge": ("VOI merge", 1, 3),
    "nerl_em_erl_50": ("NERL, em_erl merge threshold 50 [%]", 100, 2),
    "coverage": ("nodes on background [%]", 100, 2),
    "n_non0_mergers": ("mergers", 1, 1),
    "n_splits": ("split edges", 1, 1),
}
# Tests may differ in these: the seed is what is varied, the threshold is compared by where it
# comes from, and another batch changes the last bits.
_FREE = ("seed", "decode.threshold", "predict.batch_per_device")


# What an evaluation must say.
_ORIGIN: dict[str, Schema] = {"threshold_origin": text()}
_TESTED = _ORIGIN | {
    "config": table_of(),
    "threshold": either(number(), text(), nothing()),
    "parameters": optional(table_of(number())),  # of a decoder without a threshold
    "volume": text(),
}
_BY_SKELETONS = {
    "skeleton_sha256": text(),
    "skeletons": {
        key: number() if key == "nerl" else optional(number()) for key in METRICS
    },
}
_BY_LABELS = {"label_fingerprint": text(), "dense": table_of(number())}


def run(runs: Sequence[str], workdir: str = "") -> dict[str, Any]:
    """Mode summarize: writes `summary.txt` and `summary.json`, and prints the former.

    Args:
      runs: folders of runs, or evaluations (`eval_*.json`) where a run has several.
      workdir: where to write; "" for the folder that holds all runs.

    Returns:
      What the JSON holds: `n`, `runs`, and of each metric `mean`, `sd`, `interval` (low,
      high), `half_width` and the `values`.

    Raises:
      InputError: no run, one without a test, several tests of which none is the one, runs
        of different settings, or a seed twice.
    """
    if not runs:
        raise InputError(
            "--mode=summarize names no run; wanted RUN RUN ..., their folders"
        )
    trainings = [_training(pathlib.Path(run)) for run in runs]
    _require_one_setting(trainings)
    result = {
        "name": trainings[0]["shared"]["name"],
        "volume": trainings[0]["volume"],
        "n": len(trainings),
        "confidence": CONFIDENCE,
        "runs": [
            {k: v for k, v in training.items() if k != "shared"}
            for training in trainings
        ],
        "metrics": {},
    }
    for key in METRICS:
        values = [float(t["scores"][key]) for t in trainings if key in t["scores"]]
        if len(values) == len(trainings):
            result["metrics"][key] = spread(values)
    text = _text(result)
    folder = pathlib.Path(workdir or _common_folder(trainings))
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "summary.json", result)
    files.write_text(folder / "summary.txt", text)
    print(text, end="")
    logging.info("wrote %s", folder / "summary.txt")
    return result


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1) and interval of the mean by Student's t.

    One value has no spread: its `sd`, `half_width` and `interval` are None.
    """
    n, mean = len(values), float(np.mean(values))
    found: dict[str, Any] = {"mean": mean, "sd": None, "half_width": None}
    found |= {"interval": None, "values": list(values)}
    if n > 1:
        sd = float(np.std(values, ddof=1))
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * sd / math.sqrt(n)
        found |= {"sd": sd, "half_width": half, "interval": [mean - half, mean + half]}
    return found


def _training(path: pathlib.Path) -> dict[str, Any]:
    """One run's test: its seed, step, threshold and scores, and what all runs share."""
    chosen = path if path.suffix == ".json" else _chosen_test(path)
    truth = {"skeletons": optional(anything()), "dense": optional(anything())}
    facts = _read(chosen, truth)
    by_skeletons = "skeletons" in facts
    if not by_skeletons and not facts.get("dense"):
        raise InputError(f"{chosen} has no scores; test with a skeleton or labels")
    wanted = _TESTED | (_BY_SKELETONS if by_skeletons else _BY_LABELS)
    records.check(facts, wanted, str(chosen), "wanted a run that was tested")
    folder = path if path.is_dir() else _run_of(chosen)
    trained = _read(folder / "config.json", {"seed": whole(-(2**63)), "name": text()})
    tested = facts["config"]
    mask = tested.get("decode.affinity_mask")
    shared = {"name": trained["name"], "decode.affinity_mask": mask}
    shared |= determines.facts(trained, "weights")
    shared |= determines.facts(tested, "prediction", "segmentation")
    if mask == "auto":
        shared |= determines.facts(tested, "report")
    shared |= {
        **(
            {"test skeleton": facts["skeleton_sha256"]}
            if by_skeletons
            else {"test labels": facts["label_fingerprint"]}
        ),
        "checkpoint step": _step_of(chosen),
        "threshold": "tuned" if _tuned(facts) else facts["threshold_origin"],
    }
    return {
        "run": str(folder),
        "evaluation": str(chosen),
        "seed": trained["seed"],
        "step": _step_of(chosen),
        "volume": facts["volume"],
        "threshold": facts["threshold"],
        "threshold_origin": facts["threshold_origin"],
        **{name: facts[name] for name in ("parameters",) if name in facts},
        "scores": facts["skeletons" if by_skeletons else "dense"],
        "shared": {k: v for k, v in shared.items() if k not in _FREE},
    }


def _chosen_test(folder: pathlib.Path) -> pathlib.Path:
    """The evaluation of a run's newest test, with the tuned threshold where there is one."""
    found = sorted(folder.glob("test_step=*/*/eval_*.json"))
    if not found:
        raise InputError(f"{folder} has no test_step=*/*/eval_*.json; run --mode=test")
    newest = [p for p in found if _step_of(p) == _step_of(found[-1])]
    tuned = [p for p in newest if _tuned(_read(p, _ORIGIN))]
    chosen = tuned if tuned else newest
    if len(chosen) > 1:
        names = ", ".join(str(p.relative_to(folder)) for p in chosen)
        raise InputError(
            f"{folder} has {len(chosen)} tests of its newest checkpoint ({names}); name "
            "one of these files instead of the folder"
        )
    return chosen[0]


def _tuned(facts: Mapping[str, Any]) -> bool:
    return str(facts["threshold_origin"]).startswith("tuned on ")


def _step_of(path: pathlib.Path) -> int:
    for part in path.parts:
        step = part.removeprefix("test_step=")
        if step != part and step.isdigit():
            return int(step)
    raise InputError(
        f"{path} does not lie below a test_step=N; wanted a run's own test"
    )


def _run_of(path: pathlib.Path) -> pathlib.Path:
    for folder in path.absolute().parents:
        if (folder / "config.json").is_file():
            return folder
    raise InputError(f"{path} lies in no run's folder (none above it has config.json)")


def _read(path: pathlib.Path, schema: Schema) -> dict[str, Any]:
    return records.read_json(path, schema, "wanted a run that was tested")


def _said(run: Mapping[str, Any]) -> str:
    """Other programs' segmentations may name no threshold, or name it by a word."""
    if "parameters" in run:
        return score_text.parameters(run["parameters"])
    threshold = run["threshold"]
    said = f"{threshold:g}" if isinstance(threshold, int | float) else str(threshold)
    return f"threshold {said}"


def _require_one_setting(trainings: Sequence[Mapping[str, Any]]) -> None:
    first, *others = trainings
    for other in others:
        a, b = first["shared"], other["shared"]
        # A key that one of them does not have follows from another's value.
        for key in sorted(
            a.keys() | b.keys(), key=lambda k: (k not in a or k not in b, k)
        ):
            if a.get(key) != b.get(key):
                raise InputError(
                    f"{first['run']} and {other['run']} are of different settings: {key} is "
                    f"{a.get(key)!r} and {b.get(key)!r}; summarize runs that differ in "
                    "their seed alone"
                )
    seeds: dict[int, str] = {}
    for training in trainings:
        seed = training["seed"]
        if seed in seeds:
            raise InputError(
                f"{seeds[seed]} and {training['run']} both have seed {seed}; wanted "
                "trainings that differ in their seed"
            )
        seeds[seed] = training["run"]


def _first_score(scores: Mapping[str, float]) -> str:
    """The first of `METRICS` in a line, without its unit's brackets; "" for none."""
    for key, (name, factor, digits) in METRICS.items():
        if key in scores:
            called, _, unit = name.partition(" [")
            end = f" {unit[:-1]}" if unit else ""
            return f"{called} {factor * scores[key]:.{digits}f}{end} "
    return ""


def _common_folder(trainings: Sequence[Mapping[str, Any]]) -> str:
    folders = [os.path.abspath(t["run"]) for t in trainings]
    return os.path.commonpath(folders)


def _text(result: Mapping[str, Any]) -> str:
    n = result["n"]
    seeds = ", ".join(str(run["seed"]) for run in result["runs"])
    lines = [f"{result['name']} on {result['volume']}: n = {n} (seed {seeds})", ""]
    width = max(len(name) for name, *_ in METRICS.values())
    lines.append(f"{'':<{width}}{'mean':>10}{'sd':>10}   {CONFIDENCE:.0%} interval")
    for key, found in result["metrics"].items():
        name, factor, digits = METRICS[key]

        def number(value: float, factor=factor, digits=digits) -> str:
            return f"{factor * value:.{digits}f}"

        line = f"{name:<{width}}{number(found['mean']):>10}"
        if n > 1:
            low, high = map(number, found["interval"])
            half = number(found["half_width"])
            line += f"{number(found['sd']):>10}   {low} to {high} (+- {half})"
        else:
            line += f"{'n = 1':>10}   n = 1"
        lines.append(line)
    lines.append("")
    for run in result["runs"]:
        lines.append(
            f"seed {run['seed']}: {_first_score(run['scores'])}at {_said(run)} "
            f"({run['threshold_origin']}), step {run['step']}, {run['run']}"
        )
    if "nerl" not in result["metrics"]:  # no leaderboard ranks by labels
        return "\n".join(lines) + "\n"
    if not all(_tuned(run) for run in result["runs"]):
        lines.append(
            "The leaderboard asks for thresholds chosen on val: --mode=tune-test."
        )
    if n < 5:
        lines.append(f"The leaderboard asks for five trainings; here n = {n}.")
    return "\n".join(lines) + "\n"
