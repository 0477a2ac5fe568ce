"""What a study chose: `best_params.yaml`, written beside its curve, and read for testing.

PyTC's file of that name is read too; its parameters that no decoder here takes are left
out, with a warning. Ours begins with a checksum of the rest: a file that was cut may end
within a number, and is a file of another threshold then.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from absl import logging

from nisbjax.artifacts import TuneDir
from nisbjax.decode.methods import METHODS, counting
from nisbjax.errors import InputError
from nisbjax.evaluate import score_text
from nisbjax.keys.checks import require
from nisbjax.keys.ranges import RANGES
from nisbjax.store import files, records, schema
from nisbjax.tune import figure, study, trial_table, trials
from nisbjax.tune.objective import objective_of, score_of
from nisbjax.typing import DecodeValues, Section

# PyTC's files have more, and not all of these.
_SCHEMA = {
    "decoding_params": schema.record(
        {"threshold": schema.optional(schema.number(0, 1))}
    ),
    "decoding_function": schema.optional(schema.text()),
    "test_data_used": schema.optional(schema.boolean()),
}
_WITH_THRESHOLD = {"decoding_params": schema.record({"threshold": schema.number(0, 1)})}
_ADVICE = "run --mode=tune again"
_CHECKSUM = b"# sha256 of the lines below: "


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a finished tuning chose: `decoding_params` and where they come from.

    Raises:
      InputError: no such file, one without a threshold, or one that changed since it was
        written.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no tuned parameters at {path}; run --mode=tune first")
    best = records.read_yaml(path, _SCHEMA, _ADVICE)
    _require_threshold(best, str(path))
    first, _, below = path.read_bytes().partition(b"\n")
    if first.startswith(_CHECKSUM) and first != _checksum(below):
        raise InputError(
            f"{path} changed since it was written, by the checksum in its first line; "
            f"{_ADVICE}, or remove that line if you meant to change it"
        )
    return best


def parameters(
    section: Section, best: Mapping[str, Any], path: str | os.PathLike[str]
) -> DecodeValues:
    """The keys of `decode` that a study chose, for the method of the configuration.

    Args:
      section: `decode`, whose method decides, and the types of whose keys.
      best: what `best_params.yaml` holds.
      path: where it stands, for messages.

    Raises:
      InputError: it is of another method, or a value is none that its key takes.
    """
    method = section.method
    records.check(best, _SCHEMA, str(path), _ADVICE)
    _require_threshold(best, str(path))
    function = best.get("decoding_function", method)
    if function.removeprefix("decode_") != method:
        raise InputError(
            f"{path} is of decode.method={function}, and decode.method is {method}; set "
            f"--config.decode.method={function}, or run --mode=tune"
        )
    found = best["decoding_params"]
    known = (*METHODS[method].parameters, "min_size")
    unknown = sorted(str(key) for key in found if key not in known)
    if unknown:
        said = ", ".join(unknown)
        logging.warning("%s: %s: no parameters of %s", path, said, method)
    chosen = {}
    for key in known:
        if key not in found:
            continue
        value = found[key]
        if isinstance(section[key], int) and isinstance(value, float):
            value = int(value) if value.is_integer() else value  # PyTC's 5.0
        require(f"{path}: {key}", value, RANGES[f"decode.{key}"])
        chosen[key] = type(section[key])(value)
    return chosen


def conclude(
    section: Section,
    opened: optuna.Study,
    storage: str,
    made_from: Mapping[str, Any],
    *,
    configured: trials.Point,
    on_test: bool,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What `best_params.yaml` is to hold.

    Args:
      section: `decode`, for what the method takes besides what was tuned.
      opened: the study, all of its trials evaluated.
      storage: where it is kept.
      made_from: what it scored.
      configured: the values that the configuration has for what is tuned; they are kept
        where the best ones are hardly better.
      on_test: whether that was the test volume.
      notes: what else a reader must know; "" for nothing.
    """
    top, kept = study.choose(opened, configured)
    objective = objective_of(opened)
    found = [*study.warnings(opened), *filter(None, (kept, *notes))]
    if on_test:
        found.append("the threshold was chosen on test data: not a test result")
    for warning in found:
        logging.warning(warning)
    score = trials.scores_of(top)
    method = METHODS[section.method]
    fixed = (
        *counting(method.parameters_of(section)),
        *["min_size"] * bool(section.min_size),
    )
    # The threshold comes last, as in files of before: it is always tuned.
    chosen = {n: section[n] for n in fixed if n != "threshold"} | top.params
    said = score_text.parameters(chosen)
    logging.info("chosen %s\n%s", said, score_text.summary(score))
    return {
        "best_trial": top.number,
        "best_value": score_of(objective, top.value or 0.0),
        "metric": objective,
        "decoding_function": section.method,
        "decoding_params": chosen,
        "scores": score,
        "warnings": found,
        "test_data_used": on_test,
        "study": opened.study_name,
        "storage": storage,
        "trials_complete": len(study.complete(opened)),
        "made_from": dict(made_from),
    }


def write(
    out: TuneDir,
    opened: optuna.Study,
    result: Mapping[str, Any],
    configured: trials.Point,
) -> None:
    """Writes the figure first: who finds best_params.yaml finds everything.

    The log has the trials in a table.

    Args:
      out: the study's folder.
      opened: the study.
      result, configured: of `conclude`.
    """
    complete = study.complete(opened)
    rows = [trials.scores_of(t) | t.params for t in complete]
    tuned = sorted(complete[0].params, key=lambda name: (name != "threshold", name))
    rows.sort(key=lambda row: [row[name] for name in tuned])
    table = trial_table.text(
        rows,
        tuned,
        objective_of(opened),
        chosen=result["decoding_params"],
        default=configured,
    )
    logging.info("%d trials, the best first\n%s", len(rows), table)
    out.path.mkdir(parents=True, exist_ok=True)
    chosen = {**result["scores"], **result["decoding_params"]}
    figure.draw(rows, chosen, tuned, out.figure)
    text = yaml.dump(dict(result), Dumper=_Dumper, sort_keys=False)
    files.write_text(out.best_params, f"{_checksum(text.encode()).decode()}\n{text}")


def _require_threshold(best: Mapping[str, Any], path: str) -> None:
    """Refuses a file without a threshold, unless its method has none."""
    function = best.get("decoding_function", "").removeprefix("decode_")
    if function not in METHODS or "threshold" in METHODS[function].parameters:
        records.check(best, _WITH_THRESHOLD, path, _ADVICE)


def _checksum(below: bytes) -> bytes:
    return _CHECKSUM + hashlib.sha256(below).hexdigest().encode()


class _Dumper(yaml.SafeDumper):
    """Writes what stands in two places twice: readers refuse aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
