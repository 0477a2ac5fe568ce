"""Checkpoints through Orbax: weights, average, optimizer and progress as separate items.

    <checkpoints>/<step>/{params, ema, optimizer, progress, model, config}

Prediction reads one item of weights and the model's description, never the optimizer.
Kept are the latest, the best few by validation loss and every N steps, by a preservation
policy: Orbax's own `max_to_keep` with `best_fn` deletes the newest checkpoint when its loss
is not among the best. PyTC's checkpoints had no average until 2026-08.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from nisbjax.errors import InputError

_ARRAYS = ("params", "ema", "optimizer")
_FACTS = ("progress", "model", "config")
_METRIC = "val_loss"


class Checkpoints:
    """The checkpoints of one run; saving is asynchronous.

    Args:
      directory: of all of them.
      best: how many of the lowest validation loss to keep; 0 for none.
      every: steps of which every multiple is kept; 0 for none.
    """

    def __init__(
        self, directory: pathlib.Path, *, best: int = 3, every: int = 50_000
    ) -> None:
        latest = policies.LatestN(n=1)
        lowest = policies.BestN(
            get_metric_fn=lambda metrics: metrics[_METRIC],
            reverse=True,
            n=best,
            keep_checkpoints_without_metrics=False,
        )
        kept: list[policies.PreservationPolicy] = [latest]
        if every:
            kept.append(policies.EveryNSteps(interval_steps=every))
        if best:
            kept.append(lowest)
        self.directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,
            ),
            item_names=(*_ARRAYS, *_FACTS),
        )

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        arrays: Mapping[str, Any],
        facts: Mapping[str, Mapping[str, Any]],
        val_loss: float | None = None,
    ) -> None:
        """Starts to write one checkpoint; a step that is there already is left alone.

        Args:
          step: optimizer steps done.
          arrays: the pytrees `params`, `ema` and `optimizer`.
          facts: JSON objects `progress`, `model` and `config`.
          val_loss: of these weights, where they were just validated.
        """
        if step in self._manager.all_steps():
            return
        items = {name: ocp.args.StandardSave(arrays[name]) for name in _ARRAYS}
        items |= {name: ocp.args.JsonSave(dict(facts[name])) for name in _FACTS}
        metrics = None if val_loss is None else {_METRIC: float(val_loss)}
        self._manager.save(
            step, args=ocp.args.Composite(**items), metrics=metrics, force=True
        )

    def restore(
        self, step: int, like: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays and progress of a step.

        Args:
          step: one of `steps`.
          like: pytrees `params`, `ema` and `optimizer` of arrays or shapes with the wanted
            shardings.

        Raises:
          InputError: the checkpoint is of another model or optimizer.
        """
        items: dict[str, Any] = {
            name: ocp.args.StandardRestore(jax.tree.map(_abstract, like[name]))
            for name in _ARRAYS
        }
        items["progress"] = ocp.args.JsonRestore()
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint {self.directory / str(step)} does not fit this config's "
                f"model or optimizer ({str(error).splitlines()[0]}); start a new "
                "--workdir, or restore the config that wrote it"
            ) from None
        return {name: found[name] for name in _ARRAYS}, found["progress"]

    def wait(self) -> None:
        """Returns when everything saved is durable."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


def find(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of one checkpoint, from it, from `checkpoints/`, or from a run's folder.

    Raises:
      InputError: no checkpoint there.
    """
    path = pathlib.Path(path)
    if (path / "params").is_dir():
        return path.absolute()
    for folder in (path, path / "checkpoints"):
        if folder.is_dir():
            steps = [p for p in folder.iterdir() if (p / "params").is_dir()]
            numbered = [p for p in steps if p.name.isdigit()]
            if numbered:
                return max(numbered, key=lambda p: int(p.name)).absolute()
    raise InputError(
        f"no checkpoint at {path}; wanted a run's folder or one of its checkpoints/<step>"
    )


def step_of(checkpoint: pathlib.Path) -> int:
    """Optimizer steps behind a checkpoint: the number that names its folder.

    Raises:
      InputError: the folder is not named by a step.
    """
    if not checkpoint.name.isdigit():
        raise InputError(f"checkpoint {checkpoint} is not named by its step")
    return int(checkpoint.name)


def describe(checkpoint: pathlib.Path) -> dict[str, Any]:
    """What the model of a checkpoint is: the arguments of `MedNeXt`."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return reader.restore(checkpoint / "model")


def weights(checkpoint: pathlib.Path, which: str, like: Any) -> Any:
    """One item of weights alone, on the devices that `like` says.

    Args:
      checkpoint: its folder, as `find` gives it.
      which: `ema` or `raw`.
      like: pytree of arrays or shapes.

    Raises:
      InputError: another word, or the weights are of another model.
    """
    items = {"ema": "ema", "raw": "params"}
    if which not in items:
        raise InputError(f"predict.weights is {which!r}; wanted ema or raw")
    try:
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(
                checkpoint / items[which], jax.tree.map(_abstract, like)
            )
    except (ValueError, KeyError) as error:
        raise InputError(
            f"checkpoint {checkpoint} is of another model "
            f"({str(error).splitlines()[0]}); name the config that trained it"
        ) from None


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
