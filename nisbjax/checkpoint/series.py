"""The checkpoints of one run: written asynchronously, sealed with checksums, and kept.

Kept are the latest, the best few by validation loss and every N steps. Orbax's own
`max_to_keep` with `best_fn` deletes the newest checkpoint when its loss is not among the
best, and its policies forget all losses when a process starts again; ours reads them from
the checkpoints. A checkpoint counts once its checksums are written, after Orbax's
asynchronous save is durable.
"""

import concurrent.futures
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from nisbjax import checkpoint
from nisbjax.checkpoint import ARRAYS, FACTS
from nisbjax.errors import InputError
from nisbjax.parallel import hosts
from nisbjax.store import checksums

_VAL_LOSS = "val_loss"


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
        self.directory = directory.absolute()
        self._kept = _Kept(best, every)
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._kept,
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,
            ),
            item_names=(*ARRAYS, *FACTS),
        )
        for step in self.steps:
            self._kept.note(step, _val_loss(self.directory / str(step)))
        self._sealer = concurrent.futures.ThreadPoolExecutor(1, "checksums")
        self._sealing: concurrent.futures.Future[None] | None = None

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def newest_sound(self) -> int | None:
        """The newest checkpoint whose files are as they were written; None without any.

        One that was never finished, or is damaged, is named in the log and moved aside, so
        that the run can write that step again. With several processes the first looks, and
        all take its word.

        Raises:
          InputError: there were checkpoints, and all of them are damaged.
        """
        found = hosts.first_decides(self._set_damaged_aside)
        self._manager.reload()
        return int(found) if found else None

    def _set_damaged_aside(self) -> str:
        damaged = []
        for step in reversed(self.steps):
            folder = self.directory / str(step)
            problem = checkpoint.problem_of(folder)
            if not problem:
                return str(step)
            kind = "damaged" if checksums.finished(folder) else "unfinished"
            aside = _free(folder.with_name(f"{step}.{kind}"))
            logging.warning(
                "checkpoint %s %s; it is now %s, and the one before it is used",
                folder,
                problem,
                aside.name,
            )
            folder.rename(aside)
            self._kept.note(step, None)
            damaged += [aside.name] * (kind == "damaged")
        if damaged:
            raise InputError(
                f"every checkpoint in {self.directory} is damaged (now "
                f"{', '.join(damaged)}); put back a copy, or start a new --workdir"
            )
        return ""

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
          facts: JSON objects `step`, `loader`, `model` and `config`.
          val_loss: of these weights, where they were just validated; it joins `step`.
        """
        if step in self._manager.all_steps():
            return
        self._wait_for_seal()
        if val_loss is not None and not math.isfinite(val_loss):
            val_loss = None  # never among the best
        facts = {**facts, "step": {**facts["step"], _VAL_LOSS: val_loss}}
        items = {name: ocp.args.StandardSave(arrays[name]) for name in ARRAYS}
        items |= {name: ocp.args.JsonSave(dict(facts[name])) for name in FACTS}
        self._kept.note(step, val_loss)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        if hosts.first():
            folder = self.directory / str(step)
            self._sealing = self._sealer.submit(self._seal, folder)

    def _seal(self, folder: pathlib.Path) -> None:
        self._manager.wait_until_finished()
        checksums.write(folder)

    def _wait_for_seal(self) -> None:
        if self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            sealing.result()

    def wait(self) -> None:
        """Returns when everything saved is durable, checksums included."""
        self._manager.wait_until_finished()
        self._wait_for_seal()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            self._manager.close()


class _Kept(policies.PreservationPolicy):
    """Which checkpoints stay: the newest, the `best` of lowest loss, every `every` steps."""

    def __init__(self, best: int, every: int):
        self._best, self._every = best, every
        self._losses: dict[int, float] = {}

    def note(self, step: int, loss: float | None) -> None:
        self._losses.pop(step, None)
        if loss is not None:
            self._losses[step] = loss

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        steps = [info.step for info in checkpoints]
        known = sorted(
            (s for s in steps if s in self._losses), key=self._losses.__getitem__
        )
        kept = {max(steps, default=None), *known[: self._best]}
        return [s in kept or bool(self._every and s % self._every == 0) for s in steps]


def _val_loss(folder: pathlib.Path) -> float | None:
    try:
        return checkpoint.fact(folder, "step").get(_VAL_LOSS)
    except InputError:  # found and named where the checkpoint is used
        return None


def _free(path: pathlib.Path) -> pathlib.Path:
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free
