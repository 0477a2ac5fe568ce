"""One checkpoint: where it lies, whether it is sound, and its items one by one.

    <checkpoints>/<step>/{params, ema, optimizer, step, loader, model, config} SHA256SUMS

Arrays are Orbax's, facts are JSON. Prediction reads one item of weights and the model's
description, never the optimizer. Orbax restores flipped bits without a word, so a
checkpoint is compared with its checksums before it is used. PyTC's checkpoints had no
average until 2026-08.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from nisbjax.errors import InputError
from nisbjax.store import checksums, records
from nisbjax.store.schema import (
    boolean,
    either,
    list_of,
    nothing,
    number,
    optional,
    table_of,
    text,
    whole,
)

ARRAYS = ("params", "ema", "optimizer")
FACTS = ("step", "loader", "model", "config")
_WEIGHTS = {"ema": "ema", "raw": "params"}
# What each fact must be, whatever its checksum says.
_FACTS = {
    "step": {
        "step": whole(),
        "started_from": optional(table_of()),
        "val_loss": optional(either(number(), nothing())),
        "parameters": optional(table_of(list_of(text()))),
    },
    "loader": {"seed": whole(), "global_batch": whole(1), "accumulate": whole(1)},
    "model": {
        "size": text(),
        "kernel_size": whole(1),
        "in_channels": whole(1),
        "out_channels": whole(1),
        "channels": whole(1),
        "deep_supervision": boolean(),
    },
    "config": table_of(),
}


def find(
    path: str | pathlib.Path, items: Sequence[str] = (*ARRAYS, *FACTS)
) -> pathlib.Path:
    """The folder of one sound checkpoint.

    Args:
      path: of a checkpoint, of `checkpoints/` or of a run; of those the newest sound
        checkpoint is taken, and damaged ones before it are named in the log.
      items: whose files are compared with their checksums; see `weight_items`.

    Raises:
      InputError: no checkpoint there, or the named one is damaged, or all are.
    """
    path = pathlib.Path(path)
    if _holds_items(path):
        problem = problem_of(path, items)
        if problem:
            raise InputError(
                f"checkpoint {path} {problem}; name another, or the run's folder for "
                "its newest sound one"
            )
        return path.absolute()
    damaged = []
    for folder in numbered(path) or numbered(path / "checkpoints"):
        try:
            problem = problem_of(folder, items)
        except FileNotFoundError:  # a training run keeps only some
            continue
        if not problem:
            return folder.absolute()
        logging.warning("checkpoint %s %s; the one before it is used", folder, problem)
        damaged.append(folder.name)
    if damaged:
        raise InputError(
            f"every checkpoint of {path} is unsealed or damaged ({', '.join(damaged)}); "
            "--mode=train on the run seals what reads whole; or put back a copy"
        )
    raise InputError(
        f"no checkpoint at {path}; wanted a run's folder or one of its checkpoints/<step>"
    )


def problem_of(folder: pathlib.Path, items: Sequence[str] | None = None) -> str:
    """What is wrong with a checkpoint, as the end of a sentence; "" for a sound one.

    Args:
      folder: of the checkpoint.
      items: whose files are compared with their checksums; None for all.

    Raises:
      FileNotFoundError: it is gone.
    """
    if not checksums.finished(folder):
        folder.stat()  # gone altogether is another matter
        return (
            f"was not sealed (no {checksums.NAME}; --mode=train on its run checks it)"
        )
    found = checksums.damage(folder, items)
    if not found:
        return ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"is damaged ({found[0]}{more}, by its {checksums.NAME})"


def numbered(directory: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints in a folder, finished or not, newest first."""
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if p.name.isdigit() and _holds_items(p)]
    return sorted(found, key=lambda p: int(p.name), reverse=True)


def weight_items(which: str) -> tuple[str, ...]:
    """The items that prediction reads for `predict.weights`.

    Raises:
      InputError: another word than `ema` or `raw`.
    """
    if which not in _WEIGHTS:
        raise InputError(f"predict.weights is {which!r}; wanted ema or raw")
    return _WEIGHTS[which], "model"


def step_of(checkpoint: pathlib.Path) -> int:
    """Optimizer steps behind a checkpoint: the number that names its folder.

    Raises:
      InputError: the folder is not named by a step.
    """
    if not checkpoint.name.isdigit():
        raise InputError(f"checkpoint {checkpoint} is not named by its step")
    return int(checkpoint.name)


def fact(checkpoint: pathlib.Path, name: str) -> dict[str, Any]:
    """One JSON item: `step`, `loader`, `model` or `config`.

    Raises:
      InputError: the checkpoint does not have it, or something else in its place.
    """
    return records.read_json(
        checkpoint / name / "metadata",
        _FACTS[name],
        f"checkpoint {checkpoint} is damaged, or of another program",
    )


def describe(checkpoint: pathlib.Path) -> dict[str, Any]:
    """What the model of a checkpoint is: the arguments of `MedNeXt`."""
    return fact(checkpoint, "model")


def require_model(
    checkpoint: pathlib.Path, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """The checkpoint's description, if it is of the model that the config asks for.

    Raises:
      InputError: naming every argument that differs.
    """
    found = describe(checkpoint)
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        facts = ", ".join(
            f"model.{key} {found.get(key)} (config: {wanted[key]})" for key in differing
        )
        raise InputError(
            f"checkpoint {checkpoint} is of another model: {facts}; name the config that "
            "trained it"
        )
    return found


def _holds_items(folder: pathlib.Path) -> bool:
    return any((folder / item).is_dir() for item in (*ARRAYS, "model"))
