"""Choices as a table: in the user's cache, in the package, and in a run's `environment.json`.

Source: the tables of XLA's autotuner (`xla_gpu_load_autotune_results_from`). We differ in what a
table says of itself: the device, the versions and the kernels' sources that it was measured
with, and one of others is measured anew. A line is read as text and nothing of it is run:

    "depthwise float16[2,128,128,128,32] float32[3,3,3,32] strides=[1,1,1]": "pallas TY=4 TZ=16"
"""

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
from absl import logging

from nisbjax.errors import InputError
from nisbjax.models.kernels.choice import Candidate, Use
from nisbjax.parallel import user_cache
from nisbjax.store import files

_HERE = pathlib.Path(__file__).parent
_MOST_BYTES = 1 << 24
# What a file that is damaged, or somebody else's, may raise; `InputError` is one of them.
UNREADABLE = (ValueError, RecursionError)
_CHOSEN = "chosen"
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_PARAMETER = re.compile(r"(\w+)=(-?\d+)")

Facts = Mapping[str, str]
Choices = Mapping[Use, Candidate]


def facts(word: str) -> dict[str, str]:
    """What a choice holds for: device, versions, kernels' sources, `model.kernels`.

    Args:
      word: of `model.kernels`.
    """
    return {
        "device": jax.local_devices()[0].device_kind,
        "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"),
        "sources": _sources(),
        "kernels": word,
    }


@functools.cache
def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(_HERE.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cached(known: Facts) -> pathlib.Path:
    """Where the table of such facts lies in the user's cache, whether there or not."""
    digest = hashlib.sha256(
        json.dumps(dict(known), sort_keys=True).encode()
    ).hexdigest()
    device = re.sub(r"\W+", "_", known["device"])[:60]
    return user_cache.folder("kernels") / f"{device}-{digest[:16]}.json"


def read(path: pathlib.Path, known: Facts) -> dict[Use, Candidate]:
    """The choices of a table; none, with a line in the log, where it is damaged or of others.

    Args:
      path: of the table; there need be none.
      known: what it has to be of.
    """
    if not path.exists():
        return {}
    try:
        return of_these(json.loads(files.read_bytes(path, _MOST_BYTES)), known)
    except UNREADABLE as error:
        logging.warning(
            "%s is not taken (%s); kernels are measured again", path, _line(error)
        )
        return {}


def write(path: pathlib.Path, known: Facts, chosen: Choices) -> None:
    """Replaces a table; one that cannot be written costs the next start a minute."""
    try:
        files.write_json(path, noted(known, chosen))
    except (InputError, OSError) as error:
        logging.warning("%s is not kept: %s", path, _line(error))


def shipped(device: str) -> dict[Use, Candidate]:
    """Choices that come with the package, for devices whose kind begins as a table says.

    They were measured with other versions, and are to be looked at before they are taken.
    A table of the user's cache may be put there as it is.
    """
    chosen: dict[Use, Candidate] = {}
    for path in sorted(_HERE.glob("*.json")):
        table = json.loads(path.read_bytes())
        if device.startswith(table["device"]):
            chosen |= _choices(table)
    return chosen


def noted(known: Facts, chosen: Choices) -> dict[str, Any]:
    """A table as JSON has it."""
    lines = {use_text(use): candidate_text(c) for use, c in chosen.items()}
    return {**known, _CHOSEN: lines}


def of_these(table: Any, known: Facts) -> dict[Use, Candidate]:
    """The choices of `noted`.

    Args:
      table: from JSON.
      known: what it has to be of.

    Raises:
      ValueError: it is of others, or no such table.
    """
    if not isinstance(table, dict):
        raise InputError("it is no table")
    for name, value in known.items():
        if table.get(name) != value:
            raise InputError(f"it is of {name} {table.get(name)!r}, here is {value!r}")
    return _choices(table)


def _choices(table: Mapping[str, Any]) -> dict[Use, Candidate]:
    lines = table.get(_CHOSEN)
    if not isinstance(lines, dict):
        raise InputError("it has no choices")
    return {parsed_use(use): parsed_candidate(c) for use, c in lines.items()}


def use_text(use: Use) -> str:
    """A use as one line."""
    arrays = (
        f"{dtype}[{','.join(map(str, shape))}]"
        for shape, dtype in zip(use.shapes, use.dtypes, strict=True)
    )
    # Blanks stand in words alone, which may be written so in JSON.
    static = (
        f"{name}={json.dumps(value, separators=(',', ':'))}".replace(" ", r"\u0020")
        for name, value in use.static
    )
    return " ".join((use.operation, *arrays, *static))


def parsed_use(text: str) -> Use:
    """The use of a line.

    Raises:
      ValueError: it is none.
    """
    operation, *words = text.split(" ")
    shapes, dtypes, static = [], [], []
    for word in words:
        name, equals, value = word.partition("=")
        array = _ARRAY.fullmatch(word)
        if array:
            sizes = array[2].split(",") if array[2] else []
            dtypes.append(array[1])
            shapes.append(tuple(map(int, sizes)))
        elif equals:
            static.append((name, _frozen(json.loads(value))))
        else:
            raise InputError(f"{word!r} is no array and no argument")
    return Use(operation, tuple(shapes), tuple(dtypes), tuple(static))


def candidate_text(candidate: Candidate) -> str:
    """A candidate as one line."""
    parameters = (f"{name}={value}" for name, value in candidate.parameters)
    return " ".join((candidate.name, *parameters))


def parsed_candidate(text: Any) -> Candidate:
    """The candidate of a line.

    Raises:
      ValueError: it is none.
    """
    if not isinstance(text, str):
        raise InputError(f"{text!r} is no candidate")
    name, *words = text.split(" ")
    parameters = [_PARAMETER.fullmatch(word) for word in words]
    if None in parameters:
        raise InputError(f"{text!r} is no candidate")
    return Candidate(name, tuple((p[1], int(p[2])) for p in parameters if p))


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        raise InputError(f"{value!r} is no argument")
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
