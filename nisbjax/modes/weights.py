"""Modes import and export: networks of other programs to checkpoints of ours, and back.

Source: the files of BANIS, PyTC, `nnunet_mednext` and MONAI, see `models.foreign.torch_import`.
PyTC loads what fits of an external file and stays silent about the rest; here the file
must hold exactly one MedNeXt, and what it is comes from its shapes, not from the config.
"""

import contextlib
import hashlib
import json
import pathlib
from typing import Any

from absl import logging
from flax import nnx

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint, restore
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import flatten
from nisbjax.errors import InputError
from nisbjax.keys.checks import optional
from nisbjax.models import build
from nisbjax.models.foreign import torch_export, torch_import, upkern
from nisbjax.modes.train import describe_run
from nisbjax.store import lock
from nisbjax.train import step
from nisbjax.train.optimizer import order
from nisbjax.train.recipe import make_recipe
from nisbjax.typing import Config


def run(config: Config, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Writes one checkpoint, which `--mode=test` and the others then take.

    The file's own weights become `params`; their average becomes `ema` where the file has
    one (PyTC since 2026-08), otherwise `ema` is a copy of `params`. The optimizer's state
    is that of the config's optimizer before its first update.

    Args:
      config: the configuration; of `model` only `upkern` and, with it, `kernel_size`.
      run_dir: a folder without checkpoints.
      checkpoint_path: of the file (.ckpt, .pt, .pth, .safetensors, .npz).

    Returns:
      The checkpoint's folder, `<run>/checkpoints/<step>`.

    Raises:
      InputError: no such file, not exactly a MedNeXt that the keys of `model` can
        describe, or the folder holds checkpoints.
    """
    path = optional(checkpoint_path)
    if not path:
        raise InputError(
            "--mode=import needs --checkpoint, the file of weights (.ckpt, .pt, .pth, "
            ".safetensors or .npz)"
        )
    foreign = torch_import.open_foreign(path)
    kinds = tuple(foreign.weights) or ("raw",)  # none: reading says so
    networks = {kind: _network(config, foreign, kind) for kind in kinds}
    described, params = networks.get("raw") or networks["ema"]
    other, average = networks.get("ema") or networks["raw"]
    if other != described:
        raise InputError(
            f"{path} holds an average of another network ({other}) than its weights "
            f"({described}); import a checkpoint of one run"
        )
    with lock.held(run_dir.lock):
        found = _write(config, run_dir, foreign, described, params, average)
    logging.info(
        "imported the %s weights of %s, step %d\nwrote %s\n%s",
        " and ".join(kinds),
        path,
        foreign.step,
        found,
        ", ".join(f"model.{key}={value}" for key, value in described.items()),
    )
    differing = [key for key in described if config.model[key] != described[key]]
    if differing:
        flags = (f"--config.model.{key}={described[key]}" for key in differing)
        logging.warning(
            "the config describes another network; with it add %s (--workdir=%s brings its "
            "own)",
            *(" ".join(flags), run_dir.path),
        )
    return found


def export(config: Config, run_dir: Run, checkpoint_path: str) -> pathlib.Path:
    """Mode export: the weights of a checkpoint for torch, under the original's names.

    Args:
      config: the configuration; of it `predict.weights`, the average unless it says raw.
      run_dir: where the file goes, and whose newest sound checkpoint is taken.
      checkpoint_path: another checkpoint; "" for that one.

    Returns:
      The safetensors file.

    Raises:
      InputError: no checkpoint, or it is damaged.
    """
    which = config.predict.weights
    items = checkpoint.weight_items(which)
    found = checkpoint.find(optional(checkpoint_path) or run_dir.path, items)
    described = checkpoint.describe(found)
    params = restore.weights(found, which, build.abstract_params(described))
    number = checkpoint.step_of(found)
    path = run_dir.exported(number, which)
    facts = {"format": "pt", "step": str(number), "weights": which}
    facts["model"] = json.dumps(described)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch_export.write_safetensors(path, torch_export.state_dict(params), facts)
    logging.info("exported the %s weights of %s to %s", which, found, path)
    return path


def _network(
    config: Config, foreign: torch_import.Foreign, kind: str
) -> tuple[dict[str, Any], Any]:
    """What the weights of one kind are, and the parameters."""
    try:
        weights = foreign.read(kind)
        described = torch_import.describe(weights)
        params = nnx.to_pure_dict(nnx.state(torch_import.to_model(weights)))
    except InputError as error:
        raise InputError(f"{foreign.path}, {kind} weights: {error}") from None
    wanted = config.model.kernel_size
    if config.model.upkern and wanted != described["kernel_size"]:
        if wanted < described["kernel_size"]:
            raise InputError(
                f"model.kernel_size is {wanted}, {foreign.path} has "
                f"{described['kernel_size']}; model.upkern makes kernels larger only"
            )
        described |= {"kernel_size": wanted}
        params = upkern.upkern(params, build.abstract_params(described))
    return described, params


def _write(
    config: Config,
    run_dir: Run,
    foreign: torch_import.Foreign,
    described: dict[str, Any],
    params: Any,
    average: Any,
) -> pathlib.Path:
    chosen = config.copy_and_resolve_references().unlock()
    optimizer = make_recipe(config).optimizer
    fresh = step.initial_state(params, optimizer, config.train.precision)
    chosen.model.update(described)
    with contextlib.closing(Checkpoints(run_dir.checkpoints)) as checkpoints:
        if checkpoints.newest_sound() is not None:
            raise InputError(
                f"{run_dir.path} holds checkpoints already; name another --workdir"
            )
        describe_run(chosen, run_dir)
        origin = {"path": str(foreign.path.absolute()), "reset": []}
        origin |= {"weights": list(foreign.weights), "sha256": _sha256(foreign.path)}
        loader = {
            "seed": config.seed,
            "global_batch": config.train.batch_per_device,
            "accumulate": config.train.accumulate,
            "next_batch": foreign.step,
        }
        checkpoints.save(
            foreign.step,
            {
                "params": params,
                "ema": average,
                "optimizer": {"optax": fresh.optimizer, "scale": fresh.scale},
            },
            {
                "step": {
                    "step": foreign.step,
                    "started_from": origin,
                    "parameters": order(params),
                },
                "loader": loader,
                "model": described,
                "config": flatten(chosen),
            },
        )
        checkpoints.wait()
        return checkpoints.directory / str(foreign.step)


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
