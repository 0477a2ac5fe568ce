"""The loop with a step that only counts: what happens when, and how it stops."""

import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.checkpoint import Checkpoints
from nisbjax.train import loop
from nisbjax.train.metric_writer import MetricWriter
from nisbjax.train.precision import LossScale
from nisbjax.train.step import TrainState


class Saved(Checkpoints):
    def __init__(self):
        self.saved = []
        self.waited = 0

    def save(self, step, arrays, facts, val_loss=None):
        assert facts["progress"]["step"] == step
        assert facts["progress"]["global_batch"] == 4
        self.saved.append((step, float(arrays["params"]), val_loss))

    def wait(self):
        self.waited = len(self.saved)


class Written(MetricWriter):
    def __init__(self, on_write=lambda step: None):
        self.lines = []
        self.on_write = on_write

    def write(self, step, scalars):
        self.lines.append((step, dict(scalars)))
        self.on_write(step)


def state_at(step):
    counted = jnp.float32(step)
    return TrainState(
        jnp.int32(step), counted, counted, {}, LossScale(jnp.float32(1), jnp.int32(0))
    )


def train(
    *,
    steps=6,
    first=0,
    log_every=1,
    val_every=0,
    checkpoint_every=0,
    minutes=0.0,
    on_write=lambda step: None,
    on_step=lambda number: None,
    loss=lambda number: 10.0 + number,
    skips_overflow=False,
):
    """Runs the loop; the loss of batch n is 10 + n."""
    seen = []

    def step(state, batch):
        seen.append(batch)
        on_step(batch)
        value = np.float32(loss(batch))
        scalars = {
            "loss": value,
            "grad_norm": value,
            "finite": np.isfinite(value),
            "per_channel": np.array([1.0, 2.0]),
        }
        return state_at(int(state.step) + 1), scalars

    saved, written = Saved(), Written(on_write)

    def go():
        return loop.run(
            step,
            lambda state: {"loss": np.float32(100 - state.params)},
            itertools.count(first),
            state_at(first),
            intervals=loop.Intervals(
                steps, log_every, val_every, checkpoint_every, minutes
            ),
            checkpoints=saved,
            writer=written,
            facts=loop.Facts({}, {}, {"step": 0, "global_batch": 4}),
            describe_batch=lambda number: f"crop {number}",
            skips_overflow=skips_overflow,
        )

    return go, seen, saved, written


def test_intervals_of_a_run():
    go, seen, saved, written = train(
        steps=7, log_every=2, val_every=3, checkpoint_every=4
    )
    assert int(go().step) == 7
    assert seen == list(range(7))
    # Every 4 steps, wherever it validates, and the last.
    assert saved.saved == [(3, 3, 97), (4, 4, None), (6, 6, 94), (7, 7, 93)]
    assert saved.waited == 4
    means = [
        (step, line["train/loss"], line["train/loss_mean"])
        for step, line in written.lines
        if "train/loss" in line
    ]
    # Batch n has loss 10 + n; after 2, 4, 6 and 7 steps: the last and the mean of all.
    assert means == [(2, 11, 10.5), (4, 13, 12.5), (6, 15, 14.5), (7, 16, 16)]
    assert [(s, x["val/loss"]) for s, x in written.lines if "val/loss" in x] == [
        (3, 97),
        (6, 94),
        (7, 93),
    ]
    line = written.lines[0][1]
    assert line["train/per_channel/0"] == 1 and line["train/per_channel/1"] == 2
    assert line["time/step_s"] >= line["time/data_wait_s"] >= 0


def test_a_start_in_the_middle_and_at_the_end():
    go, seen, saved, _ = train(steps=6, first=4)
    go()
    assert seen == [4, 5] and saved.saved == [(6, 6, None)]
    go, seen, saved, _ = train(steps=6, first=6)
    assert int(go().step) == 6
    assert seen == [] and saved.saved == []


def test_a_checkpoint_after_so_many_minutes():
    go, _, saved, _ = train(steps=3, minutes=1e-9)
    go()
    assert [s for s, *_ in saved.saved] == [1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("where", ["on_step", "on_write"])
def test_a_signal_saves_the_step_under_way_and_ends(number, where):
    """Wherever in the loop it comes, nothing that was trained is lost."""
    before = signal.getsignal(number)

    def kill(at):
        if at == 2:
            os.kill(os.getpid(), number)

    go, seen, saved, _ = train(steps=9, log_every=1, **{where: kill})
    with pytest.raises(SystemExit) as stopped:
        go()
    assert stopped.value.code == loop.STOPPED == 143
    # Batch 2 is step 3; a line is written after step 2, when step 3 is yet to come.
    assert seen == [0, 1, 2]
    assert saved.saved == [(3, 3, None)] and saved.waited == 1
    assert signal.getsignal(number) is before


def test_a_signal_in_the_last_step_ends_as_any_run():
    def kill(at):
        if at == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    go, _, saved, _ = train(steps=2, on_step=kill)
    assert int(go().step) == 2 and saved.saved == [(2, 2, None)]


def test_a_loss_that_is_not_finite_names_its_crops():
    options = {"loss": lambda n: np.nan if n == 3 else 1.0, "log_every": 2}
    go, seen, saved, _ = train(**options)
    with pytest.raises(
        loop.NotFiniteError,
        match=r"step 3: the loss is nan, its gradient norm nan; crops: crop 3. Lower opt",
    ):
        go()
    assert seen == [0, 1, 2, 3] and saved.saved == []  # nothing bad was saved
    go, seen, _, _ = train(**options, skips_overflow=True)
    go()
    assert seen == list(range(6))


def test_scalars_have_flat_names():
    values = {"loss": jnp.float32(2), "per_channel": jnp.array([1.0, 3.0])}
    assert loop.flat_scalars("val", jax.device_get(values)) == {
        "val/loss": 2,
        "val/per_channel/0": 1,
        "val/per_channel/1": 3,
    }
