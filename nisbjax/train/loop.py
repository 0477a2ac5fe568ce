"""The loop around the compiled step: validates, logs, saves, stops on a signal.

A step is a function of its state and its number, so a run that was stopped or killed is
resumed from its last checkpoint and its losses equal those of an undisturbed run. SIGTERM
(SIGUSR1, SLURM's time-limit warning, and Ctrl-C too) saves after the step under way, or with
several processes at the step on which they agree, and ends with status 143 (130 after Ctrl-C);
PyTC loses what came after its last epoch's checkpoint.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jaxtyping import UInt8

from nisbjax.checkpoint.series import Checkpoints
from nisbjax.console import quantities
from nisbjax.console.progress import Progress
from nisbjax.errors import InputError
from nisbjax.parallel import hosts
from nisbjax.train import gauges
from nisbjax.train.metric_writer import MetricWriter
from nisbjax.train.step import TrainState
from nisbjax.train.stopping import Stopping

# Steps that the host is ahead of the devices, so that batches do not pile up.
_MOST_UNDER_WAY = 2


@dataclasses.dataclass(frozen=True)
class Intervals:
    """When the loop does what; in steps unless said otherwise, 0 for never."""

    steps: int
    log_every: int
    val_every: int
    checkpoint_every: int
    checkpoint_minutes: float

    def logs(self, done: int) -> bool:
        """Whether the loop logs after so many steps, the last among them."""
        return self.log_every > 0 and self._ends(done, self.log_every)

    def validates(self, done: int) -> bool:
        return self.val_every > 0 and self._ends(done, self.val_every)

    def saves(self, done: int) -> bool:
        """After each validation too, so that a checkpoint goes with each loss."""
        return self.validates(done) or self._ends(done, self.checkpoint_every)

    def _ends(self, done: int, interval: int) -> bool:
        return done == self.steps or (interval > 0 and done % interval == 0)


class Validation(NamedTuple):
    """What one validation found: `loss` and more, and a picture where there is one."""

    scalars: Mapping[str, Any]
    picture: UInt8[np.ndarray, "h w 3"] | None = None


class NotFiniteError(InputError):
    """A loss or gradient was NaN or infinite where the recipe has no place for it."""


def run(
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    validate: Callable[[TrainState], Validation],
    batches: Iterator[Any],
    state: TrainState,
    *,
    intervals: Intervals,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    facts: Mapping[str, Mapping[str, Any]],
    report_failure: Callable[[TrainState, Mapping[str, Any]], str],
) -> TrainState:
    """Trains from `state.step` to `intervals.steps`.

    Args:
      step: compiled, donates its state.
      validate: on the fixed validation crops.
      batches: on the devices, from `state.step` on.
      state: where to start.
      intervals: see there.
      checkpoints: where to save; the last step is always saved.
      writer: of scalars and pictures.
      facts: that go into every checkpoint; `step` and `loader` are completed here.
      report_failure: takes the state before a step that failed and that step's scalars;
        keeps what reproduces it and says so, for the message.

    Raises:
      NotFiniteError: a step has `failed`, at most two steps ago; nothing after it changed
        the state or was saved.
      SystemExit: with status 143, after a signal and a saved checkpoint; 130 after Ctrl-C.
    """
    first = int(state.step)
    clock = gauges.Clock()
    under_way = _UnderWay(report_failure, keeps=intervals.log_every > 0)
    saving = _Saving(checkpoints, facts, first)
    with (
        Stopping(_MOST_UNDER_WAY) as stopping,
        Progress("train", intervals.steps, "steps", done=first) as progress,
    ):
        for done in range(first + 1, intervals.steps + 1):
            with clock.waiting:
                batch = next(batches)
            under_way.read_oldest(state)
            state, scalars = step(state, batch)
            under_way.add(done - 1, scalars)
            progress.update()
            stops, overdue = stopping.agreed(
                done, saving.overdue(intervals.checkpoint_minutes), saving.step
            )
            logs = intervals.logs(done) or (stops and intervals.log_every > 0)
            saves = intervals.saves(done) or stops or overdue
            if not (logs or saves):
                continue
            under_way.read_all(state)
            if logs:
                _log(done, under_way.take(), clock, writer, progress)
            with clock.aside:
                val_loss = None
                if intervals.validates(done):
                    val_loss = _write_validation(done, validate(state), writer)
                if saves:
                    writer.flush()  # what a kill may cost is done again
                    saving.save(done, state, val_loss)
            if stops and done < intervals.steps:
                _wait(checkpoints)
                logging.info("stopped by signal at step %d; start again to go on", done)
                raise SystemExit(stopping.status)
    _wait(checkpoints)
    return state


class _UnderWay:
    """Steps whose scalars the host has not read yet, and those it has yet to log.

    Args:
      report_failure: see `run`.
      keeps: whether anything is logged at all.
    """

    def __init__(
        self,
        report_failure: Callable[[TrainState, Mapping[str, Any]], str],
        *,
        keeps: bool,
    ):
        self._report_failure = report_failure
        self._keeps = keeps
        self._unread: dict[int, dict[str, Any]] = {}
        self._unlogged: list[dict[str, Any]] = []

    def add(self, number: int, scalars: dict[str, Any]) -> None:
        """Takes the scalars of a step, which may not have ended."""
        self._unread[number] = scalars

    def read_oldest(self, state: TrainState) -> None:
        """Waits for the oldest step where more are under way than may be."""
        if len(self._unread) > _MOST_UNDER_WAY:
            self._read(min(self._unread), state)

    def read_all(self, state: TrainState) -> None:
        """Waits for all steps, in their order."""
        for number in sorted(self._unread):
            self._read(number, state)

    def take(self) -> list[dict[str, Any]]:
        """What was read since it was last taken, on the host."""
        taken, self._unlogged = self._unlogged, []
        return jax.device_get(taken)

    def _read(self, number: int, state: TrainState) -> None:
        scalars = self._unread.pop(number)
        if jax.device_get(scalars.pop("failed")):
            raise NotFiniteError(self._report_failure(state, jax.device_get(scalars)))
        if self._keeps:
            self._unlogged.append(scalars)


class _Saving:
    """Writes checkpoints, and knows when it last did.

    Attributes:
      step: of the newest checkpoint, or where this start began.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        facts: Mapping[str, Mapping[str, Any]],
        first: int,
    ):
        self.step = first
        self._checkpoints = checkpoints
        self._facts = facts
        self._at = time.monotonic()

    def overdue(self, minutes: float) -> bool:
        """Whether so many minutes have passed since; never, of 0."""
        return 0 < minutes <= (time.monotonic() - self._at) / 60

    def save(self, done: int, state: TrainState, val_loss: float | None) -> None:
        arrays = {
            "params": state.params,
            "ema": state.ema,
            "optimizer": {"optax": state.optimizer, "scale": state.scale},
        }
        progress = {"step": {"step": done}, "loader": {"next_batch": done}}
        facts = {
            name: {**values, **progress.get(name, {})}
            for name, values in self._facts.items()
        }
        self._checkpoints.save(done, arrays, facts, val_loss)
        self._at, self.step = time.monotonic(), done


def _log(
    done: int,
    values: list[dict[str, Any]],
    clock: gauges.Clock,
    writer: MetricWriter,
    progress: Progress,
) -> None:
    """Writes the scalars of the last step, and means over all steps since the last line."""
    if not values:
        return
    scalars = flat_scalars("train", values[-1])
    losses = [float(v["loss"]) for v in values if v["finite"]]
    mean = float(np.mean(losses)) if losses else math.nan
    scalars["train/loss_mean"] = mean
    scalars["train/skipped"] = float(len(values) - len(losses))
    writer.write(done, scalars | clock.scalars(len(values)) | gauges.memory())
    progress.note(f"loss {mean:.4f}")
    progress.told()
    left = progress.seconds_left
    logging.info(
        "step %d: loss %.4f, %s%s",
        *(done, mean, clock.text),
        f", {quantities.duration(left)} left" if left else "",
    )


def _wait(checkpoints: Checkpoints) -> None:
    """For the last checkpoint, and for the first process, which seals it."""
    checkpoints.wait()
    hosts.wait_for_all("training ends")


def _write_validation(done: int, found: Validation, writer: MetricWriter) -> float:
    """Logs a validation; its loss."""
    loss = float(found.scalars["loss"])
    writer.write(done, flat_scalars("val", found.scalars))
    if found.picture is not None:
        writer.write_picture(done, "val/preview", found.picture)
    logging.info("step %d: validation loss %.4f", done, loss)
    return loss


def flat_scalars(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """`{prefix/name: value}`; a vector becomes `prefix/name/0`, `prefix/name/1`, ..."""
    flat = {}
    for name, value in values.items():
        if np.ndim(value) == 0:
            flat[f"{prefix}/{name}"] = float(value)
        else:
            for channel, entry in enumerate(value):
                flat[f"{prefix}/{name}/{channel}"] = float(entry)
    return flat
