"""The training stage: from a config to checkpoints in a run's folder.

Everything below takes values; this is where the keys of the config become functions. A
folder that holds a checkpoint is gone on with, as PyTC does on `--checkpoint`.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from nisbjax import devices
from nisbjax.artifacts import Run
from nisbjax.checkpoint import Checkpoints
from nisbjax.config import flatten, require_choice
from nisbjax.data import labels, nisb, targets
from nisbjax.data.augment import Augmentation
from nisbjax.data.loader import Loader
from nisbjax.errors import InputError
from nisbjax.models import build
from nisbjax.train import loop, losses, optimizer, precision, step
from nisbjax.train.metric_writer import MetricWriter

_IN_MEMORY_GB = 2.0  # volumes that fit are read once


def run(config: Any, run_dir: Run, recipe: step.Recipe | None = None) -> None:
    """Trains to `train.steps`, from the newest checkpoint of the folder if there is one.

    Args:
      config: the whole configuration.
      run_dir: where checkpoints and logs go.
      recipe: of `make_recipe`, where it was made already.

    Raises:
      InputError: data, model or a checkpoint do not fit the config; another run is writing
        to the folder.
    """
    mesh = devices.make_mesh(config.train.mesh)
    if mesh.shape.get("space", 1) != 1:
        raise InputError(
            f"train.mesh splits crops over {mesh.shape['space']} devices (space); "
            "wanted 1: split the batch over data"
        )
    logging.info("training on %s", devices.describe())
    recipe = recipe or make_recipe(config)
    best, every = config.train.ckpt_best, config.train.ckpt_every
    with (
        _lock(run_dir),
        contextlib.closing(
            Checkpoints(run_dir.checkpoints, best=best, every=every)
        ) as checkpoints,
    ):
        _train(config, run_dir, mesh, recipe, checkpoints)


def _train(
    config: Any,
    run_dir: Run,
    mesh: Any,
    recipe: step.Recipe,
    checkpoints: Checkpoints,
) -> None:
    whole = devices.replicated(mesh)
    arguments = config.model.to_dict()
    params = build.initial_params(arguments, config.seed)
    state = step.initial_state(params, recipe.optimizer, config.train.precision)
    state = jax.device_put(state, whole)
    batch = config.train.global_batch
    batch = batch or config.train.batch_per_device * mesh.shape[devices.DATA]
    progress = {"step": 0, "global_batch": batch, "seed": config.seed}
    if checkpoints.latest is not None:
        state, progress = _restore(checkpoints, checkpoints.latest, state)
        batch = progress["global_batch"]
        logging.info("going on at step %d of %s", progress["step"], run_dir.checkpoints)
    if batch % mesh.shape[devices.DATA]:
        raise InputError(
            f"the global batch is {batch} on {mesh.shape[devices.DATA]} devices; wanted a "
            "multiple of the devices"
        )
    loader = _loader(config, "train", recipe.examples.crop, mesh, batch)
    validate = _validation(config, recipe, mesh, batch)
    train_step = step.make_train_step(recipe, mesh)
    first = int(state.step)
    # Compiled before the first batch is waited for; a warm cache makes this short.
    started = time.monotonic()
    train_step.lower(state, loader.batch(first)).compile()
    logging.info(
        "compiled the training step of %.2f M parameters in %.1f s",
        sum(p.size for p in jax.tree.leaves(params)) / 1e6,
        time.monotonic() - started,
    )
    writer = MetricWriter(run_dir.logs, run_dir.history, first)
    with contextlib.closing(writer):
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
            facts=loop.Facts(build.describe(arguments), flatten(config), progress),
            describe_batch=lambda number: "; ".join(loader.describe(number)),
            skips_overflow=recipe.scaled,
        )


def make_recipe(config: Any) -> step.Recipe:
    """The functions and numbers of a step, from the config's keys.

    Raises:
      InputError: a key has a value that is none of its choices.
    """
    require_choice("data.kind", config.data.kind, ("nisb", "files"))
    schedule = optimizer.learning_rate(
        config.schedule.kind,
        lr=config.optimizer.lr,
        steps=config.schedule.steps,
        min_lr=config.schedule.min_lr,
        warmup_steps=config.schedule.warmup_steps,
    )
    dtype = precision.compute_dtype(config.train.precision)
    decay = {k: v for k, v in config.optimizer.to_dict().items() if k != "lr"}
    examples = targets.Recipe(
        patch=tuple(config.data.patch),
        offsets=tuple(tuple(o) for o in config.data.offsets),
        stored_at=config.data.edge_stored_at,
        erosion=labels.erosion_triple(config.data.erosion, config.data.erosion_axes),
        augmentation=Augmentation(**config.augment),
        calibre_max=config.loss.calibre_max,
    )
    if len(examples.offsets) != config.model.out_channels:
        raise InputError(
            f"data.offsets names {len(examples.offsets)} edges, model.out_channels is "
            f"{config.model.out_channels}; wanted the same number"
        )
    return step.Recipe(
        apply=build.make_apply(config.model.to_dict(), dtype, remat=config.model.remat),
        examples=examples,
        objective=_objective(config),
        optimizer=optimizer.adamw(schedule, **decay),
        seed=config.seed,
        ema_decay=config.ema.decay,
        ema_warmup=config.ema.warmup_steps,
        accumulate=config.train.accumulate,
        scaled=config.train.precision == "fp16",
    )


def open_training_data(config: Any) -> None:
    """Opens what training would read, so that a wrong path ends before a folder is made.

    Raises:
      InputError: data are missing, or do not fit one another or the model.
    """
    _open_pairs(config, "train")
    if config.train.val_every:
        _open_pairs(config, "val")


def _objective(config: Any) -> step.Objective:
    keys = {k: v for k, v in config.loss.items() if k != "calibre_max"}
    loss = losses.make_loss(**keys)
    if not config.model.deep_supervision:
        return loss
    return lambda pyramid, made, valid, weights: losses.deep_supervision(
        pyramid, made, valid, loss, weights
    )


def _open_pairs(config: Any, split: str) -> list[nisb.Pair]:
    data = config.data[split]
    pairs = nisb.open_pairs(config.data.root, data.image, data.label, data.box)
    for pair in pairs:
        if pair.image.shape[-1] != config.model.in_channels:
            raise InputError(
                f"{pair.image.source} has {pair.image.shape[-1]} channels, "
                f"model.in_channels is {config.model.in_channels}; wanted the same"
            )
    return pairs


def _loader(
    config: Any, split: str, crop: Any, mesh: Any, batch: int, count: int | None = None
) -> Loader:
    return Loader(
        nisb.in_memory(_open_pairs(config, split), _IN_MEMORY_GB),
        crop,
        seed=config.seed,
        global_batch=batch * (config.train.accumulate if count is None else 1),
        count=count,
        normalize=config.data.normalize,
        relabel=config.data.relabel,
        sharding=devices.split_batch(mesh),
        threads=config.train.loader_threads,
        prefetch=config.train.prefetch,
    )


def _validation(
    config: Any, recipe: step.Recipe, mesh: Any, batch: int
) -> Callable[[step.TrainState], dict[str, Any]]:
    """Means over the fixed validation crops, of the averaged weights if so configured."""
    if not config.train.val_every:
        return lambda state: {}
    loader = _loader(
        config, "val", recipe.examples.crop, mesh, batch, config.train.val_crops
    )
    evaluate = step.make_validation_step(recipe, mesh)

    def validate(state: step.TrainState) -> dict[str, Any]:
        weights = state.ema if config.ema.validate else state.params
        scalars = [evaluate(weights, crops) for crops in loader.batches()]
        return jax.tree.map(lambda *v: np.mean(v, axis=0), *jax.device_get(scalars))

    return validate


def _restore(
    checkpoints: Checkpoints, latest: int, state: step.TrainState
) -> tuple[step.TrainState, dict[str, Any]]:
    like = {
        "params": state.params,
        "ema": state.ema,
        "optimizer": {"optax": state.optimizer, "scale": state.scale},
    }
    arrays, progress = checkpoints.restore(latest, like)
    number = jax.device_put(jnp.int32(progress["step"]), state.step.sharding)
    restored = step.TrainState(
        number,
        arrays["params"],
        arrays["ema"],
        arrays["optimizer"]["optax"],
        arrays["optimizer"]["scale"],
    )
    return restored, progress


@contextlib.contextmanager
def _lock(run_dir: Run) -> Iterator[None]:
    """Refuses a second run in one folder; a lock of a process that is gone is taken over.

    Raises:
      InputError: naming the host, the process and the age of the lock.
    """
    path = run_dir.path / "train.lock"
    if jax.process_index() != 0:
        yield
        return
    run_dir.path.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            break
        except FileExistsError:
            _refuse_if_alive(path, host)
            path.unlink(missing_ok=True)
    os.write(descriptor, f"{host} {os.getpid()}".encode())
    os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _refuse_if_alive(path: Any, host: str) -> None:
    try:
        text, age = path.read_text(), time.time() - path.stat().st_mtime
        owner, pid = text.split()
    except (FileNotFoundError, ValueError):  # gone, or torn by a kill
        return
    if owner == host and not os.path.exists(f"/proc/{pid}"):
        return
    raise InputError(
        f"{path.parent} is being written by process {pid} on {owner} (since "
        f"{age / 60:.0f} minutes); wait for it, or remove {path} if it is gone"
    )
