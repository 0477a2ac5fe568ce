"""The loop around the compiled step: validates, logs, checkpoints, stops and goes on.

A step is a function of its state and its number, so a run that was stopped or killed goes
on from its last checkpoint and its losses equal those of an undisturbed run. SIGTERM (and
SIGUSR1, SLURM's time-limit warning) saves after the step under way, or with several
processes at the step on which they agree, and ends with status 143; PyTC loses what came
after its last epoch's checkpoint.
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
from tqdm import tqdm

from nisbjax.checkpoint.series import Checkpoints
from nisbjax.errors import InputError
from nisbjax.parallel import hosts
from nisbjax.parallel.signals import STOPPED, Noted
from nisbjax.train import gauges
from nisbjax.train.metric_writer import MetricWriter
from nisbjax.train.step import TrainState

_UNDER_WAY = (
    2  # steps that the host is ahead of the devices, so that batches do not pile up
)


@dataclasses.dataclass(frozen=True)
class Intervals:
    """When the loop does what; in steps unless said otherwise, 0 for never."""

    steps: int
    log_every: int
    val_every: int
    checkpoint_every: int
    checkpoint_minutes: float


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
      SystemExit: with status 143, after a signal and a saved checkpoint.
    """
    first = int(state.step)
    stopping = Noted()
    # What a process knows of signals and time is all that they could disagree about. An
    # answer is read when its step has long been done, so that nobody waits for it.
    lag = _UNDER_WAY if hosts.several() else 0
    asked: dict[int, Any] = {}
    saved_step = first
    saved_at = time.monotonic()
    unread: dict[int, dict[str, Any]] = {}  # of steps that may be under way
    unlogged: dict[int, dict[str, Any]] = {}
    clock = gauges.Clock()

    def read(number: int) -> None:
        scalars = unread.pop(number)
        if jax.device_get(scalars.pop("failed")):
            raise NotFiniteError(report_failure(state, jax.device_get(scalars)))
        if intervals.log_every:
            unlogged[number] = scalars

    def save(done: int, val_loss: float | None = None) -> None:
        arrays = {
            "params": state.params,
            "ema": state.ema,
            "optimizer": {"optax": state.optimizer, "scale": state.scale},
        }
        progress = {"step": {"step": done}, "loader": {"next_batch": done}}
        complete = {name: {**facts[name], **progress.get(name, {})} for name in facts}
        checkpoints.save(done, arrays, complete, val_loss)

    def log(done: int) -> None:
        values = list(jax.device_get(unlogged).values())
        unlogged.clear()
        if not values:
            return
        scalars = flat_scalars("train", values[-1])
        losses = [float(v["loss"]) for v in values if v["finite"]]
        mean = float(np.mean(losses)) if losses else math.nan
        scalars["train/loss_mean"] = mean
        scalars["train/skipped"] = float(len(values) - len(losses))
        writer.write(done, scalars | clock.scalars(len(values)) | gauges.memory())
        bar.set_postfix(loss=f"{mean:.4f}")
        logging.info("step %d: loss %.4f, %s", done, mean, clock.text)

    with (
        stopping,
        tqdm(
            total=intervals.steps,
            initial=first,
            desc="train",
            disable=None,
            unit="step",
        ) as bar,
    ):
        for done in range(first + 1, intervals.steps + 1):
            with clock.waiting:
                batch = next(batches)
            if len(unread) > _UNDER_WAY:
                read(min(unread))
            state, scalars = step(state, batch)
            unread[done - 1] = scalars
            bar.update()
            last = done == intervals.steps
            minutes = (time.monotonic() - saved_at) / 60
            due = 0 < intervals.checkpoint_minutes <= minutes
            # Asked once: a signal during what follows is answered after the next step.
            asked[done] = hosts.any_process([stopping.received, due])
            stop = due = False
            if done - lag in asked:
                stop, due = map(bool, jax.device_get(asked.pop(done - lag)))
                due &= done - lag > saved_step
            logs = intervals.log_every > 0 and (
                last or stop or _every(done, intervals.log_every)
            )
            validates = intervals.val_every > 0 and (
                last or _every(done, intervals.val_every)
            )
            saves = last or stop or validates or due
            saves |= _every(done, intervals.checkpoint_every)
            if not (logs or saves):
                continue
            for number in sorted(unread):
                read(number)
            if logs:
                log(done)
            with clock.aside:
                val_loss = None
                if validates:
                    val_loss = _write_validation(done, validate(state), writer)
                if saves:
                    writer.flush()  # what a kill may cost is done again
                    save(done, val_loss)
                    saved_at, saved_step = time.monotonic(), done
            if stop and not last:
                _wait(checkpoints)
                logging.info("stopped by signal at step %d; start again to go on", done)
                raise SystemExit(STOPPED)
    _wait(checkpoints)
    return state


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


def _every(done: int, interval: int) -> bool:
    return interval > 0 and done % interval == 0
