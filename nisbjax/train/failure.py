"""A step whose loss or gradient was not finite: kept on disk, and done again from there.

    python -m nisbjax.train.failure RUN/not_finite_step=00001234.npz

The file holds the crops, the weights before the step, the loss scale and the config; with
seed and step they are all that the step's numbers depend on. PyTC raises at a NaN and keeps
nothing, BANIS trains on.
"""

import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nisbjax.artifacts import Run
from nisbjax.config import base_config
from nisbjax.data import targets
from nisbjax.data.loader import Batch
from nisbjax.errors import InputError
from nisbjax.keys import ranges
from nisbjax.models.kernels import on_device
from nisbjax.parallel import devices
from nisbjax.store import files, npy, records, software
from nisbjax.store.schema import list_of, table_of, text, whole
from nisbjax.train import loss_scale, step
from nisbjax.train.recipe import choose_kernels, make_recipe, with_kernels

_FACTS = {"step": whole(), "crops": list_of(text()), "config": table_of()}


def keep(
    path: pathlib.Path,
    state: step.TrainState,
    batch: Batch,
    config: Mapping[str, Any],
    crops: Sequence[str],
) -> None:
    """Writes what reproduces the step that follows a state.

    Args:
      path: of the `.npz`.
      state: before the step; its `step` is the number of the batch.
      batch: numpy arrays of all samples.
      config: every key, flat.
      crops: a line for each sample.
    """
    facts = {
        "step": int(state.step),
        "crops": list(crops),
        "config": dict(config),
        "software": f"{software.NAME}, jax {jax.__version__}",
    }
    fields = batch._asdict().items()
    arrays = {f"batch/{name}": value for name, value in fields if value is not None}
    for tree_path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = "/".join(key.key for key in tree_path)
        arrays[f"params/{name}"] = np.asarray(leaf)
    arrays |= {f"scale/{n}": np.asarray(v) for n, v in state.scale._asdict().items()}
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def replay(path: str | os.PathLike) -> dict[str, Any]:
    """Does the kept step again, on the devices of this process.

    Returns:
      `step`, `crops`, and of that step: the scalars of training (`loss`, `grad_norm`,
      `finite`, `per_channel`, ...), the range of the augmented images (`image_min`,
      `image_max`), and how many of its logits are not finite (`logits_not_finite`).

    Raises:
      InputError: no such file, or another in its place.
    """
    facts, batch, params, scale = _load(path)
    ranges.check_flat(facts["config"])
    config = base_config()
    config.update_from_flattened_dict(facts["config"])
    recipe = make_recipe(config)
    count = len(jax.local_devices())
    count = count if len(batch.samples) // recipe.accumulate % count == 0 else 1
    mesh = devices.make_mesh(((devices.DATA, -1),), jax.local_devices()[:count])
    if on_device.on_gpu():  # on a CPU there are no others
        run = Run(pathlib.Path(path).parent)
        recorded = on_device.recorded_in(run.environment)
        micro_batch = len(batch.samples) // recipe.accumulate
        kernels = choose_kernels(mesh, config, micro_batch, recorded)
        recipe = with_kernels(recipe, mesh, config, kernels)
    state = step.initial_state(params, recipe.optimizer, config.train.precision)
    state = state._replace(step=jnp.int32(facts["step"]), scale=scale)
    batch = jax.device_put(batch, devices.split_batch(mesh))

    @jax.jit
    def look(params: Any, batch: Batch) -> dict[str, jax.Array]:
        made = targets.examples(
            batch,
            recipe.examples,
            seed=recipe.seed,
            step=facts["step"],
            training=True,
            mesh=mesh,
        )
        logits = recipe.apply(params, made.images)
        bad = [(~jnp.isfinite(x)).sum() for x in jax.tree.leaves(logits)]
        return {
            "image_min": made.images.min(),
            "image_max": made.images.max(),
            "logits_not_finite": jnp.stack(bad).sum(),
        }

    found = look(jax.device_put(params, devices.replicated(mesh)), batch)
    state = jax.device_put(state, devices.replicated(mesh))
    _, scalars = step.make_train_step(recipe, mesh)(state, batch)
    numbers = jax.device_get(found | scalars)
    return {"step": facts["step"], "crops": facts["crops"], **numbers}


def _load(
    path: str | os.PathLike,
) -> tuple[dict[str, Any], Batch, dict[str, Any], loss_scale.LossScale]:
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"no kept step at {path}; wanted RUN/not_finite_step=N.npz")
    try:
        with open(path, "rb") as raw, npy.Archive(raw) as file:
            arrays = file.all()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no kept step ({error})") from None
    names = loss_scale.LossScale._fields
    wanted = ["facts", *(f"batch/{n}" for n in Batch._fields if n != "erosion")]
    wanted += [f"scale/{n}" for n in names]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise InputError(f"{path} is no kept step: it lacks {', '.join(missing)}")
    facts = records.parse_json(str(arrays["facts"]), _FACTS, str(path))
    params: dict[str, Any] = {}
    for name, value in arrays.items():
        first, *below = name.split("/")
        if first == "params":
            *parents, leaf = below
            place = params
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = value
    named = {f"batch/{name}": name for name in Batch._fields}
    batch = Batch(**{named[key]: arrays[key] for key in named if key in arrays})
    scale = loss_scale.LossScale(*(jnp.asarray(arrays[f"scale/{n}"]) for n in names))
    return facts, batch, params, scale


def main(arguments: Sequence[str]) -> int:
    """Replays one file and prints what it found."""
    if len(arguments) != 1:
        print("usage: python -m nisbjax.train.failure RUN/not_finite_step=N.npz")
        return 2
    try:
        found = replay(arguments[0])
    except InputError as error:
        print(f"nisbjax: {error}", file=sys.stderr)
        return 2
    for name, value in found.items():
        lines = value if name == "crops" else [value]
        for line in lines:
            print(f"{name:>18}  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
