"""A checkpoint that Orbax has committed and nobody has sealed: is it whole?

A kill between the commit and the seal leaves such a folder. It may hold the newest steps of
a run, so it is read once, all of it, before it is believed; Orbax restores what it finds,
and takes a finished name for a finished checkpoint.
"""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nisbjax.checkpoint import checkpoint
from nisbjax.checkpoint.checkpoint import ARRAYS, FACTS
from nisbjax.errors import InputError

_METADATA = "_CHECKPOINT_METADATA"


def problem_of(folder: pathlib.Path) -> str:
    """What is wrong with an unsealed checkpoint, as the end of a sentence; "" if nothing.

    Its facts are JSON and of the step that names it, every array can be read and holds no
    NaN or infinity, and the average has the names and shapes of the weights. It is called
    by one process alone, whichever others the run has.

    Args:
      folder: of the checkpoint.
    """
    missing = [name for name in (*ARRAYS, *FACTS) if not (folder / name).is_dir()]
    missing += [_METADATA] * (not (folder / _METADATA).is_file())
    if missing:
        return f"was not sealed and lacks {', '.join(missing)}"
    try:
        facts = {name: checkpoint.fact(folder, name) for name in FACTS}
    except InputError as error:
        return f"was not sealed, and its {str(error).partition(';')[0]}"
    if facts["step"].get("step") != int(folder.name):
        return f"was not sealed and says step {facts['step'].get('step')}"
    shapes = {}
    for name in ARRAYS:
        try:
            leaves = _read(folder / name)
        except Exception as error:  # noqa: BLE001 (whatever a damaged file makes of it)
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            return f"was not sealed and its {name} cannot be read ({reason})"
        for path, leaf in leaves.items():
            if not np.isfinite(leaf).all():
                return f"was not sealed and {name}{path} is not finite"
        shapes[name] = {path: np.shape(leaf) for path, leaf in leaves.items()}
    if not shapes["params"]:
        return "was not sealed and has no weights"
    if shapes["params"] != shapes["ema"]:
        return "was not sealed and its ema is of other weights than its params"
    return ""


def _read(item: pathlib.Path) -> dict[str, Any]:
    """Every array of an item, by its path, on the host."""
    # The handler itself: a checkpointer around it would wait for the other processes.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="unsealed"
    )
    handler: Any = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    try:
        like = handler.metadata(item).tree
        wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
        tree = handler.restore(item, args=ocp.args.PyTreeRestore(restore_args=wanted))
    finally:
        handler.close()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
