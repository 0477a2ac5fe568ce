"""The loop with a step that only counts: what happens when, and how it stops."""

import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nisbjax.checkpoint.series import Checkpoints
from nisbjax.train import loop
from nisbjax.train.loss_scale import LossScale
from nisbjax.train.metric_writer import MetricWriter
from nisbjax.train.step import TrainState


class Saved(Checkpoints):
    def __init__(self):
        self.saved = []
        self.waited = 0

    def save(self, step, arrays, facts, val_loss=None):
        assert facts["step"] == {"step": step, "started_from": {}}
        assert facts["loader"] == {"global_batch": 4, "next_batch": step}
        self.saved.append((step, float(arrays["params"]), val_loss))

    def wait(self):
        self.waited = len(self.saved)


class Written(MetricWriter):
    def __init__(self, on_write=lambda step: None):
        self.lines, self.pictures, self.flushed = [], [], 0
        self.on_write = on_write

    def write(self, step, scalars):
        self.lines.append((step, dict(scalars)))
        self.on_write(step)

    def write_picture(self, step, tag, picture):
        self.pictures.append((step, tag, picture.shape))

    def flush(self):
        self.flushed = len(self.lines)


def state_at(step):
    counted = jnp.float32(step)
    scale = LossScale(jnp.float32(1), jnp.int32(0))
    return TrainState(jnp.int32(step), counted, counted, {}, scale, jnp.bool_(False))


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
    skips=False,
):
    """Runs the loop; the loss of batch n is 10 + n."""
    seen = []
    grey = np.zeros((2, 3, 3), np.uint8)

    def step(state, batch):
        seen.append(batch)
        on_step(batch)
        value = np.float32(loss(batch))
        scalars = {
            "loss": value,
            "grad_norm": value,
            "finite": np.isfinite(value),
            "failed": not (skips or np.isfinite(value)),
            "per_channel": np.array([1.0, 2.0]),
        }
        return state_at(int(state.step) + 1), scalars

    saved, written = Saved(), Written(on_write)

    def go():
        return loop.run(
            step,
            lambda state: loop.Validation({"loss": 100 - state.params}, grey),
            itertools.count(first),
            state_at(first),
            intervals=loop.Intervals(
                steps, log_every, val_every, checkpoint_every, minutes
            ),
            checkpoints=saved,
            writer=written,
            facts={"step": {"started_from": {}}, "loader": {"global_batch": 4}},
            report_failure=lambda state, scalars: (
                f"loss {scalars['loss']}, {int(state.step)}"
            ),
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


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)],
)
@pytest.mark.parametrize("where", ["on_step", "on_write"])
def test_a_signal_saves_the_step_under_way_and_ends(number, status, where):
    """Wherever in the loop it comes, nothing that was trained is lost."""
    before = signal.getsignal(number)

    def kill(at):
        if at == 2:
            os.kill(os.getpid(), number)

    go, seen, saved, _ = train(steps=9, log_every=1, **{where: kill})
    with pytest.raises(SystemExit) as stopped:
        go()
    assert stopped.value.code == status
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


@pytest.mark.parametrize("log_every", [0, 2, 50])
def test_a_step_that_failed_ends_the_run_soon_and_is_not_saved(log_every):
    """Whatever is logged, and where: two steps at most are under way."""
    go, seen, saved, _ = train(
        steps=20, loss=lambda n: np.nan if n == 7 else 1.0, log_every=log_every
    )
    with pytest.raises(loop.NotFiniteError, match="loss nan, "):
        go()
    assert seen == list(range(8 if log_every == 2 else 10)) and saved.saved == []


def test_a_step_that_failed_is_found_before_its_state_is_saved():
    loss = {2: np.inf}
    options = {"loss": lambda n: loss.get(n, 1.0), "log_every": 0}
    for due in ({"checkpoint_every": 3}, {"val_every": 3}, {"steps": 3}):
        go, seen, saved, written = train(**options, **due)
        with pytest.raises(loop.NotFiniteError):
            go()
        assert seen == [0, 1, 2] and saved.saved == [] and written.lines == []


def test_steps_that_the_recipe_skips_are_counted():
    go, seen, _, written = train(
        steps=4, log_every=2, loss=lambda n: np.nan if n == 1 else n, skips=True
    )
    go()
    assert seen == [0, 1, 2, 3]
    lines = [line for _, line in written.lines]
    # Losses 0, nan | 2, 3.
    assert [x["train/skipped"] for x in lines] == [1, 0]
    assert [x["train/loss_mean"] for x in lines] == [0, 2.5]


def test_nothing_is_logged_every_zero_steps():
    go, seen, saved, written = train(steps=5, log_every=0)
    go()
    assert seen == list(range(5)) and written.lines == []
    assert [s for s, *_ in saved.saved] == [5]


def test_pictures_and_memory_are_logged_and_flushed_before_a_checkpoint():
    go, _, saved, written = train(steps=4, val_every=2)
    go()
    assert written.pictures == [
        (2, "val/preview", (2, 3, 3)),
        (4, "val/preview", (2, 3, 3)),
    ]
    assert written.flushed == len(written.lines) and len(saved.saved) == 2
    assert 0.01 < written.lines[0][1]["memory/host_gb"] < 100


def test_scalars_have_flat_names():
    values = {"loss": jnp.float32(2), "per_channel": jnp.array([1.0, 3.0])}
    assert loop.flat_scalars("val", jax.device_get(values)) == {
        "val/loss": 2,
        "val/per_channel/0": 1,
        "val/per_channel/1": 3,
    }
