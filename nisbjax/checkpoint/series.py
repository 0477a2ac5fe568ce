"""The checkpoints of one run: written asynchronously, sealed with checksums, and kept.

Kept are the latest, the best few by validation loss and every N steps. Orbax deletes as
soon as it has committed, before anybody has looked at what it wrote; here a checkpoint
counts once it is sealed (its checksums are written), and what it replaces goes after that,
so that a kill at any moment leaves a sealed one. Orbax's own `max_to_keep` with `best_fn`
deletes the newest checkpoint when its loss is not among the best, and its policies forget
all losses when a process starts again; ours reads them from the checkpoints.
"""

import concurrent.futures
import contextlib
import math
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from nisbjax.checkpoint import checkpoint, orbax_errors, unsealed
from nisbjax.checkpoint.checkpoint import ARRAYS, FACTS
from nisbjax.errors import InputError
from nisbjax.parallel import hosts
from nisbjax.store import checksums

_VAL_LOSS = "val_loss"
_ASIDE = ("damaged", "unfinished")  # `<step>.<word>`, `<step>.<word>.2`, ...
_REMOVED = ".removed"
_ORBAX_TEMPORARY = ".orbax-checkpoint-tmp"

orbax_errors.say_once()


class Checkpoints:
    """The checkpoints of one run; saving is asynchronous.

    Nothing is written or made before the first `save`, but for what `newest_sound` sets
    aside or seals.

    Args:
      directory: of all of them.
      best: how many of the lowest validation loss to keep; 0 for none.
      every: steps of which every multiple is kept; 0 for none.
    """

    def __init__(
        self, directory: pathlib.Path, *, best: int = 3, every: int = 50_000
    ) -> None:
        self.directory = directory.absolute()
        self._best, self._every = best, every
        self._losses: dict[int, float] = {}
        for step in self.steps:
            self._note(step, _val_loss(self.directory / str(step)))
        self._manager: ocp.CheckpointManager | None = None
        self._sealer = concurrent.futures.ThreadPoolExecutor(1, "checksums")
        self._sealing: concurrent.futures.Future[None] | None = None
        self._failed = False

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints that are there, sealed or not, in ascending order."""
        return sorted(int(p.name) for p in self._folders() if p.name.isdigit())

    def _folders(self) -> list[pathlib.Path]:
        if not self.directory.is_dir():
            return []
        return [p for p in self.directory.iterdir() if p.is_dir()]

    def newest_sound(self) -> int | None:
        """The newest checkpoint whose files are as they were written; None without any.

        One that was committed and not sealed is read whole and then sealed. One that is
        damaged or cannot be read is named in the log and moved aside, so that the run can
        write that step again. With several processes the first looks, and all take its
        word.

        Raises:
          InputError: there were checkpoints, and none of them can be used.
        """
        found = hosts.first_decides(self._look)
        if self._manager is not None:
            self._manager.reload()
        return int(found) if found else None

    def _look(self) -> str:
        for path in self._folders():
            if path.name.endswith(_REMOVED):  # a kill came while it was deleted
                shutil.rmtree(path)
        for step in reversed(self.steps):
            if self._usable(step):
                return str(step)
        # Those of earlier starts too: what could not be used then is no beginning now.
        aside = sorted(p.name for p in self._folders() if _is_aside(p.name))
        if aside:
            raise InputError(
                f"no checkpoint in {self.directory} can be used (set aside: "
                f"{', '.join(aside)}); put back a copy, start a new --workdir, or remove "
                "them to train from step 0"
            )
        if any(_ORBAX_TEMPORARY in p.name for p in self._folders()):
            logging.warning(
                "the first checkpoint of %s was never completely written; training "
                "starts at step 0",
                self.directory,
            )
        return ""

    def _usable(self, step: int) -> bool:
        """Whether a checkpoint is sound; it is sealed if it was not, or moved aside."""
        folder = self.directory / str(step)
        kind = "damaged"
        if checksums.finished(folder):
            problem = checkpoint.problem_of(folder)
        else:
            kind, problem = "unfinished", unsealed.problem_of(folder)
            if not problem:
                logging.info(
                    "checkpoint %s was not sealed (no %s) and reads whole; sealed",
                    folder,
                    checksums.NAME,
                )
                with self._writing(step):
                    checksums.write(folder)
        if not problem:
            return True
        aside = _free(folder.with_name(f"{step}.{kind}"))
        logging.warning(
            "checkpoint %s %s; it is now %s, and the one before it is used",
            folder,
            problem,
            aside.name,
        )
        folder.rename(aside)
        self._note(step, None)
        return False

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

        Raises:
          InputError: this one, or the one before it, could not be written.
        """
        self._wait_for_seal()
        manager = self._opened()
        if step in manager.all_steps():
            return
        if val_loss is not None and not math.isfinite(val_loss):
            val_loss = None  # never among the best
        facts = {**facts, "step": {**facts["step"], _VAL_LOSS: val_loss}}
        items = {name: ocp.args.StandardSave(arrays[name]) for name in ARRAYS}
        items |= {name: ocp.args.JsonSave(dict(facts[name])) for name in FACTS}
        self._note(step, val_loss)
        with self._writing(step):
            manager.save(step, args=ocp.args.Composite(**items), force=True)
        if hosts.first():
            self._sealing = self._sealer.submit(self._seal, step)

    def _opened(self) -> ocp.CheckpointManager:
        if self._manager is None:
            orbax_errors.ignore_closed_loops()
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policies.LatestN(None),
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,
            )
            with self._writing():
                self._manager = ocp.CheckpointManager(
                    self.directory, options=options, item_names=(*ARRAYS, *FACTS)
                )
        return self._manager

    def _seal(self, step: int) -> None:
        with self._writing(step):
            self._opened().wait_until_finished()
            folder = self.directory / str(step)
            if not folder.is_dir():
                # Its writing was cut short, and who waited first was told of it: Orbax
                # tells nobody twice.
                return
            checksums.write(folder)
        self._delete_replaced()

    def _delete_replaced(self) -> None:
        """Removes what the rules do not keep; they look at sealed checkpoints alone."""
        sealed = [
            step
            for step in self.steps
            if checksums.finished(self.directory / str(step))
        ]
        for step in sorted(set(sealed) - self._kept(sealed)):
            folder = self.directory / str(step)
            try:
                # Renamed first: a kill in the middle leaves no half under its number.
                shutil.rmtree(folder.rename(folder.with_name(f"{step}{_REMOVED}")))
            except OSError as error:
                logging.warning(
                    "checkpoint %s was not removed (%s)", folder, error.strerror
                )

    def _kept(self, steps: Iterable[int]) -> set[int]:
        """The newest, the `best` of lowest loss, every `every` steps."""
        steps = sorted(steps)
        known = sorted(
            (s for s in steps if s in self._losses), key=self._losses.__getitem__
        )
        kept = {*steps[-1:], *known[: self._best]}
        return kept | {s for s in steps if self._every and s % self._every == 0}

    def _note(self, step: int, loss: float | None) -> None:
        self._losses.pop(step, None)
        if loss is not None:
            self._losses[step] = loss

    @contextlib.contextmanager
    def _writing(self, step: int | None = None) -> Iterator[None]:
        """The outside's refusal to take a checkpoint, in one line."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not orbax_errors.is_of_outside(error):
                raise
            self._failed = True
            name = "" if step is None else f"/{step}"
            raise InputError(
                f"{self.directory}{name} could not be written ({orbax_errors.words(error)}); the "
                "last sealed checkpoint is as it was: free space or give access there, "
                "and start the same command again"
            ) from error

    def _wait_for_seal(self) -> None:
        if self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            sealing.result()

    def wait(self) -> None:
        """Returns when everything saved is durable, checksums included.

        Raises:
          InputError: it could not be written.
        """
        if self._manager is not None:
            with self._writing():
                self._manager.wait_until_finished()
        self._wait_for_seal()

    def close(self) -> None:
        """Waits for what is under way; a failure that was reported is not raised again."""
        try:
            if not self._failed:
                self.wait()
        finally:
            self._sealer.shutdown()
            if self._manager is not None:
                # It waits again, and raises the failure that was reported again.
                with contextlib.suppress(OSError, ValueError):
                    self._manager.close()


def _is_aside(name: str) -> bool:
    step, *rest = name.split(".")
    return step.isdigit() and bool(rest) and rest[0] in _ASIDE


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
