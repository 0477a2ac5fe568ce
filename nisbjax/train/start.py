"""Where a run begins: at nothing, at its own last checkpoint, or at another run's.

PyTC's `--checkpoint` resumes the run that holds the checkpoint, with `--reset-optimizer`,
`--reset-scheduler` and `--reset-epoch` for a new beginning. Here a folder's own checkpoints
always come first, so that the same command goes on with what it began, and a beginning from
another run gets a folder of its own and remembers where it came from.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging

from nisbjax.checkpoint import checkpoint, restore
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.parallel import hosts
from nisbjax.train import agreement, optimizer, step
from nisbjax.train.agreement import Origin, TrainingPlan


@dataclasses.dataclass(frozen=True)
class Start:
    """A state on the devices, and what the checkpoints to come say of it.

    Attributes:
      state: to train from.
      global_batch: samples of a micro-batch on all devices.
      facts: JSON items `step` and `loader`.
    """

    state: step.TrainState
    global_batch: int
    facts: dict[str, dict[str, Any]]


def begin(
    plan: TrainingPlan,
    checkpoints: Checkpoints,
    fresh: step.TrainState,
    *,
    origin: Origin,
    default_batch: int,
) -> Start:
    """Restores what there is to resume.

    Args:
      plan: of the run.
      checkpoints: of the run's folder.
      fresh: the state of step 0, on the devices.
      origin: of a folder without checkpoints.
      default_batch: where neither the plan nor a checkpoint says how many samples.

    Raises:
      InputError: a checkpoint is damaged, of another model, of a run with another seed or
        batch, or at the end already; or the folder began elsewhere.
    """
    own = checkpoints.newest_sound()
    if own is not None:
        found = checkpoints.directory / str(own)
        agreement.require_origin(found, origin)
        logging.info("going on at step %d of %s", own, checkpoints.directory)
        agreement.require_steps(plan, found)
        # What was reset stays so: it stands in the folder's own checkpoints.
        begun = _from_checkpoint(plan, found, fresh, (), default_batch)
        if own < plan.steps and agreement.schedule_is_over(plan, begun.state):
            logging.warning(
                "the schedule is over (schedule.steps %d): what is left is trained at "
                "schedule.min_lr",
                plan.schedule_steps,
            )
        return begun
    if not origin.path:
        batch = plan.global_batch or default_batch
        none = {"path": "", "reset": []}
        return Start(fresh, batch, _facts(plan, batch, fresh, none))
    found = pathlib.Path(hosts.first_decides(lambda: str(checkpoint.find(origin.path))))
    begun = _from_checkpoint(plan, found, fresh, origin.reset, default_batch)
    agreement.require_something_to_do(plan, found, begun.state)
    logging.info(
        "starting from %s at step %d%s",
        found,
        int(begun.state.step),
        f", {', '.join(origin.reset)} reset" if origin.reset else "",
    )
    facts = _facts(plan, begun.global_batch, fresh, origin.facts())
    return dataclasses.replace(begun, facts=facts)


def _from_checkpoint(
    plan: TrainingPlan,
    found: pathlib.Path,
    fresh: step.TrainState,
    reset: Sequence[str],
    default_batch: int,
) -> Start:
    checkpoint.require_model(found, plan.model)
    done = checkpoint.fact(found, "step")
    loader = checkpoint.fact(found, "loader")
    if "optimizer" not in reset:
        agreement.require_order(found, done, fresh)
    like: dict[str, Any] = {"params": fresh.params, "ema": fresh.ema}
    opt = {"optax": fresh.optimizer, "scale": fresh.scale}
    if not {"optimizer", "schedule"} <= set(reset):
        like["optimizer"] = opt
    arrays = {"optimizer": opt, **restore.restore(found, like)}
    restored = arrays["optimizer"]
    # A scale is of its precision: float16 cannot begin at the 1 of float32.
    before = checkpoint.fact(found, "config").get("train.precision", plan.precision)
    retyped = before != plan.precision
    state = step.TrainState(
        step=jax.device_put(jnp.int32(done["step"]), fresh.step.sharding),
        params=arrays["params"],
        ema=arrays["ema"],
        optimizer=optimizer.restarted(
            restored["optax"],
            fresh.optimizer,
            moments="optimizer" in reset,
            schedule="schedule" in reset,
        ),
        scale=fresh.scale if "optimizer" in reset or retyped else restored["scale"],
        failed=fresh.failed,
    )
    if "step" in reset:
        batch = plan.global_batch or default_batch
        state = state._replace(step=fresh.step)
    else:
        batch = agreement.stored_batch(plan, found, loader)
    agreement.name_differences(plan, found)
    facts = _facts(plan, batch, fresh, done.get("started_from", {}))
    return Start(state, batch, facts)


def _facts(
    plan: TrainingPlan,
    batch: int,
    fresh: step.TrainState,
    started_from: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    return {
        "step": {
            "started_from": dict(started_from),
            "parameters": optimizer.order(fresh.params),
        },
        "loader": {
            "seed": plan.seed,
            "global_batch": batch,
            "accumulate": plan.accumulate,
        },
    }
