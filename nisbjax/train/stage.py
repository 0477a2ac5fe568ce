"""The training stage: from a config to checkpoints in a run's folder.

A folder that holds a checkpoint is resumed, as PyTC does on `--checkpoint`; what a step does
stands in `recipe`, where a run begins in `start`, and what happens when in `loop`. It is the
one stage that takes the whole configuration: nine sections decide what a run does, and its
checkpoints keep every key.
"""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from nisbjax.artifacts import Run
from nisbjax.checkpoint.series import Checkpoints
from nisbjax.config import flatten
from nisbjax.console import quantities
from nisbjax.data.loader import Loader
from nisbjax.keys import ranges
from nisbjax.models import build
from nisbjax.models.kernels import on_device
from nisbjax.parallel import compilation_cache, devices, hosts
from nisbjax.store import lock
from nisbjax.train import failure, loop, preview, step
from nisbjax.train.agreement import Origin, TrainingPlan
from nisbjax.train.metric_writer import MetricWriter, Unwritten
from nisbjax.train.recipe import (
    choose_kernels,
    make_recipe_on,
    training_loader,
    validation_loader,
    with_kernels,
)
from nisbjax.train.start import begin
from nisbjax.typing import Config

# Notes what was asked for, and what `environment.json` says besides.
Describe = Callable[[Mapping[str, Any]], None]


def run(
    config: Config,
    run_dir: Run,
    recipe: step.Recipe | None = None,
    origin: Origin | None = None,
    describe: Describe = lambda environment: None,
) -> None:
    """Trains to `train.steps`, from the newest checkpoint of the folder if there is one.

    Args:
      config: the whole configuration.
      run_dir: where checkpoints and logs go.
      recipe: of `make_recipe_on`, where it was made already.
      origin: of a folder without checkpoints; None to begin at nothing.
      describe: notes what was asked for, and the kernels in the run's environment;
        called by the first process once nothing can be refused any more, so that a refused start
        leaves the folder as it was.

    Raises:
      InputError: data, model or a checkpoint do not fit the config; another run is writing
        to the folder.
      NotFiniteError: see `loop.run`.
    """
    ranges.check(config)
    mesh = devices.make_mesh(config.train.mesh)
    recipe = recipe or make_recipe_on(mesh, config)
    best, every = config.train.ckpt_best, config.train.ckpt_every
    with contextlib.ExitStack() as held:

        def lock_folder() -> str:
            held.enter_context(_removed_if_empty(run_dir.path))
            held.enter_context(lock.held(run_dir.lock))
            return str(run_dir.lock)

        hosts.first_decides(lock_folder)
        checkpoints = held.enter_context(
            contextlib.closing(Checkpoints(run_dir.checkpoints, best=best, every=every))
        )
        origin = origin or Origin()
        _train(config, run_dir, mesh, recipe, checkpoints, origin, describe)


@contextlib.contextmanager
def _removed_if_empty(folder: pathlib.Path) -> Iterator[None]:
    """A folder that was not there is not left behind by a start that was refused."""
    before = folder.exists()
    try:
        yield
    finally:
        if not before:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _train(
    config: Config,
    run_dir: Run,
    mesh: Any,
    recipe: step.Recipe,
    checkpoints: Checkpoints,
    origin: Origin,
    describe: Describe,
) -> None:
    arguments = config.model.to_dict()
    params = build.initial_params(arguments, config.seed)
    fresh = step.initial_state(params, recipe.optimizer, config.train.precision)
    fresh = jax.device_put(fresh, devices.replicated(mesh))
    shards = mesh.shape[devices.DATA]
    begun = begin(
        TrainingPlan.of(config),
        checkpoints,
        fresh,
        origin=origin,
        default_batch=config.train.batch_per_device * shards,
    )
    state, batch = begun.state, begun.global_batch
    devices.require_shares(batch, mesh)
    first = int(state.step)
    if first == config.train.steps:
        logging.info("%s is at step %d, its last", run_dir.path, first)
        return
    recorded = on_device.recorded_in(run_dir.environment)
    kernels = choose_kernels(mesh, config, batch, recorded)
    recipe = with_kernels(recipe, mesh, config, kernels)
    kept, crop = run_dir.grey_values, recipe.examples.crop
    loader = training_loader(config, crop, mesh, batch, kept)
    validate = _validation(config, recipe, mesh, batch, kept)
    train_step = step.make_train_step(recipe, mesh)
    crops = batch * config.train.accumulate
    logging.info(
        "training steps %d to %d: %.2f M parameters on %s\n"
        "%d crops of %s a step, %d in all; time left after the first",
        *(first + 1, config.train.steps),
        sum(p.size for p in jax.tree.leaves(params)) / 1e6,
        devices.describe(),
        *(crops, quantities.shape(config.data.patch)),
        crops * (config.train.steps - first),
    )
    # Compiled before the first batch is waited for; a warm cache makes this short.
    started = time.monotonic()
    with compilation_cache.compiling("the training step", "a minute"):
        train_step.lower(state, loader.batch(first)).compile()
    seconds = time.monotonic() - started
    logging.info("compiled it in %s", quantities.duration(seconds))
    described = {"model": build.describe(arguments), "config": flatten(config)}
    noted = on_device.noted(config.model.kernels, kernels)
    described_run = functools.partial(describe, noted)
    with contextlib.closing(_open_logs(run_dir, first, described_run)) as writer:
        loop.run(
            train_step,
            validate,
            loader.batches(first),
            state,
            intervals=loop.Intervals(
                steps=config.train.steps,
                log_every=config.train.log_every,
                val_every=config.train.val_every,
                checkpoint_every=config.train.ckpt_every,
                checkpoint_minutes=float(config.train.ckpt_last_minutes),
            ),
            checkpoints=checkpoints,
            writer=writer,
            facts={**begun.facts, **described},
            report_failure=_failure_reporter(config, run_dir, loader),
        )


def _open_logs(
    run_dir: Run, first_step: int, describe: Callable[[], None]
) -> MetricWriter:
    """Describes the run and opens its logs, in the first process."""
    opened: list[MetricWriter] = [Unwritten()]

    def open_() -> str:
        describe()
        opened.append(MetricWriter(run_dir.logs, run_dir.history, first_step))
        return str(run_dir.logs)

    hosts.first_decides(open_)
    return opened[-1]


def _validation(
    config: Config, recipe: step.Recipe, mesh: Any, batch: int, kept: pathlib.Path
) -> Callable[[step.TrainState], loop.Validation]:
    """Means over the fixed validation crops, of the averaged weights if so configured."""
    if not config.train.val_every:
        return lambda state: loop.Validation({})
    loader = validation_loader(config, recipe.examples.crop, mesh, batch, kept)
    evaluate = step.make_validation_step(recipe, mesh)

    def validate(state: step.TrainState) -> loop.Validation:
        weights = state.ema if config.ema.validate else state.params
        scalars, real, view = [], [], None
        for crops in loader.batches():
            values, planes = evaluate(weights, crops)
            scalars.append(values)
            real.append(crops.real.sum())
            view = planes if view is None else view
        scalars, real, view = jax.device_get((scalars, real, view))
        # The last batch may be padded: by samples, the mean is that of any batch size.
        means = jax.tree.map(lambda *v: np.average(v, axis=0, weights=real), *scalars)
        return loop.Validation(means, preview.picture(view, recipe.examples.offsets))

    return validate


def _failure_reporter(
    config: Config, run_dir: Run, loader: Loader
) -> Callable[[step.TrainState, Mapping[str, Any]], str]:
    """Keeps the step that failed beside the checkpoints, and names its crops."""

    def report(state: step.TrainState, scalars: Mapping[str, Any]) -> str:
        number = int(state.step)
        crops = loader.describe(number)
        path = run_dir.not_finite(number)
        if hosts.first():
            failure.keep(path, state, loader.on_host(number), flatten(config), crops)
        return (
            f"step {number}: the loss is {float(scalars['loss'])}, its gradient norm "
            f"{float(scalars['grad_norm'])}; crops: {'; '.join(crops)}. Look at it with "
            f"python -m nisbjax.train.failure {path}; lower optimizer.lr or use fp32"
        )

    return report
