"""The loop around the compiled step: validates, logs, checkpoints, stops and goes on.

A step is a function of its state and its number, so a run that was stopped or killed goes
on from its last checkpoint and its losses equal those of an undisturbed run. SIGTERM (and
SIGUSR1, SLURM's time-limit warning) saves after the step under way and ends with status
143; PyTC loses what came after its last epoch's checkpoint.
"""

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from nisbjax.checkpoint import Checkpoints
from nisbjax.train.metric_writer import MetricWriter
from nisbjax.train.step import TrainState

STOPPED = 143  # 128 + SIGTERM


@dataclasses.dataclass(frozen=True)
class Intervals:
    """When the loop does what; in steps unless said otherwise, 0 for never."""

    steps: int
    log_every: int
    val_every: int
    checkpoint_every: int
    checkpoint_minutes: float


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a checkpoint says beside its arrays."""

    model: Mapping[str, Any]
    config: Mapping[str, Any]
    progress: Mapping[str, Any]


class NotFiniteError(FloatingPointError):
    """A loss or gradient was NaN or infinite outside fp16's loss scaling."""


def run(
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    validate: Callable[[TrainState], dict[str, Any]],
    batches: Iterator[Any],
    state: TrainState,
    *,
    intervals: Intervals,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    facts: Facts,
    describe_batch: Callable[[int], str],
    skips_overflow: bool,
) -> TrainState:
    """Trains from `state.step` to `intervals.steps`.

    Args:
      step: compiled, donates its state.
      validate: scalars of the fixed validation crops.
      batches: on the devices, from `state.step` on.
      state: where to start.
      intervals: see there.
      checkpoints: where to save; the last step is always saved.
      writer: of scalars.
      facts: that go into every checkpoint.
      describe_batch: names the crops of a step, for the message of a loss that is NaN.
      skips_overflow: whether steps that are not finite are part of the recipe (fp16).

    Raises:
      NotFiniteError: at the first logged step that is not finite, unless `skips_overflow`.
      SystemExit: with status 143, after a signal and a saved checkpoint.
    """
    first = int(state.step)
    stopping = _StopSignal()
    saved_at = time.monotonic()
    pending: dict[int, dict[str, Any]] = {}
    clock = _Clock()

    def save(done: int, val_loss: float | None = None) -> None:
        arrays = {
            "params": state.params,
            "ema": state.ema,
            "optimizer": {"optax": state.optimizer, "scale": state.scale},
        }
        progress = {**facts.progress, "step": done}
        checkpoints.save(
            done,
            arrays,
            {"model": facts.model, "config": facts.config, "progress": progress},
            val_loss,
        )

    def flush(done: int) -> None:
        values = jax.device_get(pending)
        pending.clear()
        for number, scalars in values.items():
            if not scalars["finite"] and not skips_overflow:
                raise NotFiniteError(
                    f"step {number}: the loss is {float(scalars['loss'])}, its gradient "
                    f"norm {float(scalars['grad_norm'])}; crops: "
                    f"{describe_batch(number)}. Lower optimizer.lr, or use fp32"
                )
        if values:
            scalars = flat_scalars("train", values[max(values)])
            mean = np.mean([v["loss"] for v in values.values()])
            scalars["train/loss_mean"] = float(mean)
            scalars |= clock.scalars(len(values))
            writer.write(done, scalars)
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
            # At most two steps are under way, so that batches do not pile up.
            jax.block_until_ready(pending.get(done - 3))
            state, scalars = step(state, batch)
            pending[done - 1] = scalars
            bar.update()
            last = done == intervals.steps
            # Asked once: a signal during what follows is answered after the next step.
            stop = stopping.received
            due = last or stop
            if due or _every(done, intervals.log_every):
                flush(done)
            val_loss = None
            if intervals.val_every and (last or _every(done, intervals.val_every)):
                values = validate(state)
                val_loss = float(values["loss"])
                writer.write(done, flat_scalars("val", values))
                logging.info("step %d: validation loss %.4f", done, val_loss)
            minutes = (time.monotonic() - saved_at) / 60
            due |= val_loss is not None or _every(done, intervals.checkpoint_every)
            if due or 0 < intervals.checkpoint_minutes <= minutes:
                save(done, val_loss)
                saved_at = time.monotonic()
            if stop and not last:
                checkpoints.wait()
                logging.info("stopped by signal at step %d; start again to go on", done)
                raise SystemExit(STOPPED)
    checkpoints.wait()
    return state


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


class _StopSignal:
    """Notes SIGTERM and SIGUSR1 instead of dying from them, inside a `with`."""

    _SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self):
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self):
        for number in self._SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, *_):
        self.received = True

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Clock:
    """Seconds for a step and, of those, waiting for data, since the last report."""

    def __init__(self):
        self.waiting = _Stopwatch()
        self.text = ""
        self._since = time.monotonic()

    def scalars(self, steps: int) -> dict[str, float]:
        now = time.monotonic()
        per_step, waited = (now - self._since) / steps, self.waiting.take() / steps
        self._since = now
        self.text = f"{per_step:.2f} s a step, {waited:.2f} s of it waiting for data"
        return {"time/step_s": per_step, "time/data_wait_s": waited}


class _Stopwatch:
    def __init__(self):
        self._total = 0.0

    def __enter__(self):
        self._start = time.monotonic()

    def __exit__(self, *_):
        self._total += time.monotonic() - self._start

    def take(self) -> float:
        total, self._total = self._total, 0.0
        return total
