"""What a run means to do, and whether the checkpoint that it begins at agrees.

PyTC loads what fits of a checkpoint and trains on with another seed, batch or order of
parameters in silence. Here whatever would make another run of it is refused by its key, and
other keys that changed are named in the log.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from nisbjax.checkpoint import checkpoint
from nisbjax.config import flatten
from nisbjax.errors import InputError
from nisbjax.keys import determines
from nisbjax.models import build
from nisbjax.train import optimizer, step
from nisbjax.typing import Config

RESETS = ("optimizer", "schedule", "step")


@dataclasses.dataclass(frozen=True)
class Origin:
    """The checkpoint that a new run is started from, as the command line names it.

    Attributes:
      path: of a checkpoint, or of a run (its newest); "" for none.
      reset: words of `RESETS`: what begins again. `optimizer` is the moments and the loss
        scale, `schedule` the learning rate's, `step` the count of steps: which crops come
        next, when the run ends, and the first updates of the average, which copy.
    """

    path: str = ""
    reset: tuple[str, ...] = ()

    @classmethod
    def parse(cls, path: str, reset: Sequence[str]) -> "Origin":
        """From the flags `--checkpoint` and `--reset`.

        Raises:
          InputError: another word, or `--reset` alone.
        """
        for word in reset:
            if word not in RESETS:
                raise InputError(
                    f"--reset names {word!r}; wanted some of {', '.join(RESETS)}, with "
                    "commas between"
                )
        if reset and not path:
            raise InputError(
                "--reset goes with --checkpoint, the one to start from; name it"
            )
        path = str(pathlib.Path(path).absolute()) if path else ""
        return cls(path, tuple(word for word in RESETS if word in reset))

    def facts(self) -> dict[str, Any]:
        return {"path": self.path, "reset": list(self.reset)}


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What a run means to do, as far as a checkpoint may disagree with it.

    Attributes:
      model: see `build.describe`.
      seed: of the crops.
      steps: at which the run ends.
      accumulate: micro-batches for one update.
      global_batch: samples of a micro-batch; 0 for what the checkpoint has.
      precision: word of `train.precision`.
      schedule_steps: updates after which the learning rate stays; None for a constant one.
      keys: of the whole configuration, flat; those that changed are named.
    """

    model: Mapping[str, Any]
    seed: int
    steps: int
    accumulate: int
    global_batch: int
    precision: str
    schedule_steps: int | None
    keys: Mapping[str, Any]

    @classmethod
    def of(cls, config: Config) -> "TrainingPlan":
        constant = config.schedule.kind == "constant"
        return cls(
            model=build.describe(config.model.to_dict()),
            seed=config.seed,
            steps=config.train.steps,
            accumulate=config.train.accumulate,
            global_batch=config.train.global_batch,
            precision=config.train.precision,
            schedule_steps=None if constant else config.schedule.steps,
            keys=flatten(config),
        )


def require_order(
    found: pathlib.Path, done: Mapping[str, Any], fresh: step.TrainState
) -> None:
    """Refuses moments whose vectors are of other parameters, or in another order.

    Args:
      found: the checkpoint, for messages.
      done: its fact `step`.
      fresh: the state of step 0; only the names and shapes of its parameters matter.

    Raises:
      InputError: naming the first parameter that differs.
    """
    wanted = optimizer.order(fresh.params)
    if "parameters" not in done:
        logging.info(
            "%s does not say in which order its moments stand; its model agrees, so "
            "they are taken in the order of this program",
            found,
        )
        return
    for group in {**wanted, **done["parameters"]}:
        ours, theirs = wanted.get(group, []), done["parameters"].get(group, [])
        for one, other in itertools.zip_longest(ours, theirs, fillvalue="nothing"):
            if one != other:
                raise InputError(
                    f"the moments of {found} have {other} where this program has {one}; "
                    "begin another --workdir with --reset=optimizer"
                )


def stored_batch(
    plan: TrainingPlan, found: pathlib.Path, loader: Mapping[str, Any]
) -> int:
    """Samples of a micro-batch, if the run is to see the same crops as before.

    Args:
      plan: of the run.
      found: the checkpoint, for messages.
      loader: its fact of that name.

    Raises:
      InputError: another seed, batch or number of micro-batches than the run began with.
    """
    wanted = {
        "seed": plan.seed,
        "train.accumulate": plan.accumulate,
        "train.global_batch": plan.global_batch or loader["global_batch"],
    }
    for key, value in wanted.items():
        began = loader[key.removeprefix("train.")]
        if value != began:
            raise InputError(
                f"{key} is {value}, but the run of {found} began with {began} and its "
                "crops depend on it; leave it as it was, or begin another --workdir with "
                "--reset=step"
            )
    return loader["global_batch"]


def require_origin(own: pathlib.Path, origin: Origin) -> None:
    """Refuses to begin elsewhere in a folder that has begun.

    Args:
      own: the folder's newest checkpoint.
      origin: as the command line names it.

    Raises:
      InputError: the folder did not begin there.
    """
    if not origin.path:
        return
    began = checkpoint.fact(own, "step").get("started_from")
    inside = pathlib.Path(origin.path)
    if own in (inside, inside / own.name, inside / "checkpoints" / own.name):
        if not origin.reset:
            return
    elif began == origin.facts():
        return
    raise InputError(
        f"{own.parent.parent} has its own checkpoints, the newest {own.name}, and was not "
        f"started from {origin.path}"
        f"{' with --reset=' + ','.join(origin.reset) if origin.reset else ''}; leave "
        "--checkpoint out to go on, or name another --workdir"
    )


def require_steps(plan: TrainingPlan, own: pathlib.Path) -> None:
    """Refuses to go on beyond the last step.

    Args:
      plan: of the run.
      own: the folder's newest checkpoint.

    Raises:
      InputError: it is of a later step than `train.steps`.
    """
    if checkpoint.step_of(own) > plan.steps:
        raise InputError(
            f"{own.parent.parent} is at step {own.name} and train.steps is "
            f"{plan.steps}; ask for more steps"
        )


def require_something_to_do(
    plan: TrainingPlan, found: pathlib.Path, state: step.TrainState
) -> None:
    """Refuses a start at which the run, or its learning rate, would be over already.

    Args:
      plan: of the run.
      found: the checkpoint, for messages.
      state: restored from it.

    Raises:
      InputError: `train.steps` or `schedule.steps` are reached.
    """
    if int(state.step) >= plan.steps:
        raise InputError(
            f"{found} is at step {int(state.step)} and train.steps is "
            f"{plan.steps}; ask for more steps, or --reset=step"
        )
    if schedule_is_over(plan, state):
        updates = int(optimizer.updates_done(state.optimizer))
        raise InputError(
            f"the schedule of {found} is over (update {updates} of schedule.steps "
            f"{plan.schedule_steps}); ask for more, or --reset=schedule"
        )


def schedule_is_over(plan: TrainingPlan, state: step.TrainState) -> bool:
    """Whether the learning rate stays at its last value from here on."""
    updates = int(optimizer.updates_done(state.optimizer))
    return plan.schedule_steps is not None and updates >= plan.schedule_steps


def name_differences(plan: TrainingPlan, found: pathlib.Path) -> None:
    """Logs the keys that differ from those the checkpoint was written with."""
    before, now = checkpoint.fact(found, "config"), plan.keys
    differing = [key for key in now if key in before and before[key] != now[key]]
    for key in differing:
        if {"weights", "checkpoints"} & set(determines.artifacts_of(key)):
            logging.info(
                "%s is %s, was %s in checkpoint %s",
                *(key, now[key], before[key], pathlib.Path(found).name),
            )
