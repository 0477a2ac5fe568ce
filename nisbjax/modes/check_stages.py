"""What each stage refuses before it works, asked without working.

The questions are the stages' own: a check that is passed here is the one that the mode
itself makes.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint
from nisbjax.errors import InputError
from nisbjax.modes import cpu_hours, prediction, segmentation, tuning, workflow
from nisbjax.modes.findings import Findings
from nisbjax.modes.outputs import NamedOutputs
from nisbjax.modes.volumes import within_box, within_box_of_tested
from nisbjax.typing import Config, Triple


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that is not begun.

    Attributes:
      mesh: devices.
      recipe: of its steps.
      batch: samples of a micro-batch on all devices.
    """

    mesh: Any
    recipe: Any
    batch: int

    @property
    def crop(self) -> Triple:
        return self.recipe.examples.crop

    @classmethod
    def of(cls, config: Config, found: Findings) -> "Training | None":
        """None where the configuration or the devices are refused."""
        from nisbjax.parallel import devices
        from nisbjax.train.recipe import make_recipe_on

        with found.asking():
            mesh = devices.make_mesh(config.train.mesh)
            section = config.train
            batch = section.global_batch
            batch = batch or section.batch_per_device * mesh.shape[devices.DATA]
            return cls(mesh, make_recipe_on(mesh, config), batch)
        return None


def training(
    config: Config,
    run_dir: Run,
    planned: Training,
    start: pathlib.Path | None,
    found: Findings,
) -> None:
    """Mode train: the network's crops, the batch, the device, the run that is gone on with.

    Args:
      config: the whole of it.
      run_dir: of the training.
      planned: the training.
      start: the checkpoint that it goes on with or starts from; None for none.
      found: takes what is wrong.
    """
    from nisbjax.parallel import devices
    from nisbjax.train import agreement, recipe

    with found.asking():
        recipe.require_patch(planned.mesh, config, planned.recipe)
    with found.asking():
        devices.require_shares(planned.batch, planned.mesh)
    own = start is not None and start.parent == run_dir.checkpoints.absolute()
    with found.asking():
        cpu_hours.require_training(
            config, checkpoint.step_of(start) if start and own else 0
        )
    if start is None:
        return
    plan = agreement.TrainingPlan.of(config)
    with found.asking():
        checkpoint.require_model(start, plan.model)
    if own:
        with found.asking():
            agreement.require_steps(plan, start)
        with found.asking():
            agreement.stored_batch(plan, start, checkpoint.fact(start, "loader"))


def network(config: Config, start: pathlib.Path | None, found: Findings) -> Any:
    """The network that predicts; None where it is refused.

    Args:
      config: keys `predict`, `model`, `seed`.
      start: its checkpoint; None to draw it from the seed.
      found: takes what is wrong.
    """
    from nisbjax.infer.network import load_network, untrained_network

    with found.asking():
        model = config.model.to_dict()
        if start is None:
            return untrained_network(config.predict, model, config.seed)
        return load_network(config.predict, model, start)
    return None


def testing(
    config: Config,
    run_dir: Run,
    start: pathlib.Path | None,
    loaded: Any,
    found: Findings,
) -> None:
    """Mode test: prediction, decoder, mask, scores, outputs.

    Args:
      config: the whole of it.
      run_dir: of the run.
      start: the checkpoint that is tested; None before there is one.
      loaded: the network; None where there is none to ask.
      found: takes what is wrong.
    """
    with found.asking():
        workflow.refuse_own(config, "test")
    with found.asking():
        config = within_box_of_tested(config)
        split = workflow.tested(config)
        place = run_dir.test(checkpoint.step_of(start) if start else 0, split.name)
        with found.asking():
            cpu_hours.require_prediction(config, split.image)
        if loaded is not None:
            with found.asking():
                prediction.check(config, loaded, split.image, place)
                for line in (
                    prediction.notes(config, start, split.image) if start else ()
                ):
                    found.warn(line)
        with contextlib.suppress(InputError):  # there is no study yet, as a rule
            parameters, _ = workflow.chosen_parameters(config, run_dir, str(start))
            config = segmentation.with_parameters(config, parameters)
        for ask in workflow.questions(config, split, place):
            with found.asking():
                ask()


def study(
    config: Config,
    run_dir: Run,
    start: pathlib.Path | None,
    loaded: Any,
    found: Findings,
) -> None:
    """Mode tune; arguments as of `testing`."""
    with found.asking():
        workflow.refuse_own(config, "tune")
        config = within_box(config, "val")
        split = tuning.volume(config)
        out = run_dir.tune(checkpoint.step_of(start) if start else 0)
        with found.asking():
            cpu_hours.require_prediction(config, split.image)
        if loaded is not None:
            with found.asking():
                place = out.prediction(split.name)
                prediction.check(config, loaded, split.image, place)
        for ask in tuning.questions(config, out, split, NamedOutputs.of(config)):
            with found.asking():
                ask()
