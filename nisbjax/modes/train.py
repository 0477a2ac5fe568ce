"""Mode train: what is asked for, and on what, noted beside the checkpoints.

PyTC and BANIS train in the process that reads the command line; here the configuration,
the command and the software are written down once nothing can be refused any more.
"""

import pathlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any

from absl import logging

from nisbjax.artifacts import Run
from nisbjax.checkpoint import checkpoint
from nisbjax.config import write
from nisbjax.keys import determines
from nisbjax.keys.checks import optional
from nisbjax.modes import cpu_hours
from nisbjax.store import address, files
from nisbjax.typing import Config


def run(
    config: Config,
    run_dir: Run,
    checkpoint_path: str,
    reset: Sequence[str] = (),
    coordinator: tuple[str, int, int] | None = None,
) -> None:
    """Mode train; notes beside the checkpoints what was asked for, and on what.

    Args:
      config: the configuration.
      run_dir: resumed where it holds a checkpoint.
      checkpoint_path: that a new run starts from; "" for none.
      reset: what begins again then, see `train.agreement.Origin`.
      coordinator: where this process stands among several, see `hosts.Place`; None to
        look at SLURM's variables.

    Raises:
      InputError: the config, the data or a checkpoint do not fit, or there is no GPU for
        what would take days without.
    """
    if not (checkpoint_path or reset) and _is_finished(config, run_dir):
        logging.info(
            "%s is at step %d, its last: it is trained; for more, raise "
            "--config.train.steps",
            *(run_dir.path, config.train.steps),
        )
        return
    from nisbjax.models import build
    from nisbjax.parallel import compilation_cache, devices, hosts
    from nisbjax.train import stage
    from nisbjax.train.agreement import Origin
    from nisbjax.train.recipe import (
        make_recipe_on,
        open_training_data,
    )

    origin = Origin.parse(optional(checkpoint_path), reset)
    hosts.join(hosts.Place(*coordinator) if coordinator else None)
    compilation_cache.begin()
    hosts.require_equal(
        f"{run_dir.path.absolute()} {origin} "
        + determines.digest(determines.facts(config, "weights", "checkpoints")),
        "the processes of this run differ in their folder or configuration; start all of "
        "them with one --workdir and the same flags",
    )
    if origin.path:  # refused before anything is written
        begun = checkpoint.numbered(run_dir.checkpoints)
        hosts.first_decides(lambda: "" if begun else str(checkpoint.find(origin.path)))
    recipe = make_recipe_on(devices.make_mesh(config.train.mesh), config)
    build.require_shape(config.model.to_dict(), recipe.examples.patch)
    open_training_data(config, recipe.examples.crop)
    cpu_hours.require_training(config, _newest_step(run_dir))
    stage.run(
        config,
        run_dir,
        recipe,
        origin,
        lambda environment: describe_run(config, run_dir, environment),
    )


def _newest_step(run_dir: Run) -> int:
    """Of the run's checkpoints, sound or not; 0 where there are none."""
    found = checkpoint.numbered(run_dir.checkpoints)
    return checkpoint.step_of(found[0]) if found else 0


def _is_finished(config: Config, run_dir: Run) -> bool:
    """Whether a sound checkpoint of the last step was trained with these very keys.

    Asked before JAX is loaded; whatever else there is, training itself looks into.
    """
    if _newest_step(run_dir) != config.train.steps:
        return False
    newest = run_dir.checkpoints / str(config.train.steps)
    if checkpoint.problem_of(newest):
        return False
    asked, used = config, checkpoint.fact(newest, "config")
    return determines.facts(used, "weights") == determines.facts(asked, "weights")


def describe_run(
    config: Config, run_dir: Run, environment: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Writes config.json, command.txt (one line for each start) and environment.json.

    The root of the data is noted as it is from anywhere, but for data that the run made.

    Args:
      config: the configuration.
      run_dir: whose files they are.
      environment: what environment.json says besides: the kernels that were chosen.
    """
    noted = config.copy_and_resolve_references().unlock()
    root = config.data.root
    if root and pathlib.Path(root).resolve() == run_dir.synthetic.resolve():
        noted.data.root = ""  # it is found there wherever the run is moved
    elif root:
        noted.data.root = address.absolute(root)
    write(noted, run_dir.config)
    with open(run_dir.command, "a") as file:
        file.write(shlex.join(sys.orig_argv) + "\n")
    packages = ("nisbjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    packages += ("tensorstore", "numpy", "numba")
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        **environment,
    }
    files.write_json(run_dir.environment, facts)
