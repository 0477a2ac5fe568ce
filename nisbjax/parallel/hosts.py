"""The processes of one run: how they find one another, and how they agree.

SLURM's variables are enough; elsewhere three flags say the same. JAX's preemption service
watches SIGTERM alone, so what one process knows (a signal of any kind, its clock) goes
through a tiny all-reduce after each step. BANIS and PyTC leave all of this to Lightning,
which needs `SLURM_NNODES` and stops its ranks at steps of their own.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from nisbjax.console import log_lines
from nisbjax.errors import InputError
from nisbjax.parallel import signals

# How long a process that ends early holds up its end for the others.
_PATIENCE_SECONDS = 30
_AS_SRUN_SETS_THEM = (
    "wanted SLURM's variables as srun sets them: put srun before python, or unset "
    "SLURM_NTASKS for a process of its own"
)


class Place(NamedTuple):
    """Where a process stands among those of a run.

    Attributes:
      coordinator: host:port of process 0; "" where SLURM or nobody says.
      processes: of the run.
      process: this one, from 0.
    """

    coordinator: str = ""
    processes: int = 1
    process: int = 0


def join(place: Place | None = None) -> None:
    """Joins the processes of this run, where there are several; call it before any JAX.

    Args:
      place: as the command line names it; None to look at SLURM's variables, which srun
        sets for each process.

    Raises:
      InputError: incomplete flags, SLURM counts several tasks and srun started none of
        them, or the others did not come.
    """
    devices: list[int] | None = None
    if place is None:
        if _whole(os.environ, "SLURM_NTASKS", "1") < 2:
            return
        if "SLURM_STEP_NODELIST" not in os.environ:
            raise InputError(
                f"SLURM_NTASKS is {os.environ['SLURM_NTASKS']} and srun did not start this "
                "process; put srun before python, or unset SLURM_NTASKS"
            )
        _require_slurm(os.environ)
        known, devices = {}, own_devices(os.environ)
    else:
        if not (re.fullmatch(r".+:\d+", place.coordinator)):
            raise InputError(
                f"--coordinator is {place.coordinator!r}; wanted host:port of process 0"
            )
        if not 0 <= place.process < place.processes:
            raise InputError(
                f"--process is {place.process} of --processes {place.processes}; wanted 0 "
                "to one less than all"
            )
        known = {
            "coordinator_address": place.coordinator,
            "num_processes": place.processes,
            "process_id": place.process,
            "cluster_detection_method": "deactivate",
        }
    # Programs on a CPU that do not need one another's results may otherwise run at once,
    # and their messages to other processes mix (Gloo: "collective mismatch").
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(
            **known,
            local_device_ids=devices,
            shutdown_timeout_seconds=_PATIENCE_SECONDS,
        )
    except RuntimeError as error:
        raise InputError(
            f"the processes of this run did not find one another ({error}); start all of "
            "them, with the same coordinator"
        ) from None
    # JAX's preemption service takes SIGTERM and goes on; the loop has its own handler, and
    # before it there is nothing to save.
    signals.end_at_once()
    if several():
        log_lines.number_process(jax.process_index())
    if not first():
        logging.set_verbosity(logging.WARNING)


def own_devices(variables: Mapping[str, str]) -> list[int]:
    """Which of the GPUs that a SLURM task sees are its own; [] for all.

    JAX by itself takes the one numbered by the task, which leaves three of four idle where
    a node runs one task, and finds none where SLURM shows every task only its own.

    Raises:
      InputError: tasks that share GPUs, and cannot share them evenly.
    """
    tasks = _tasks_here(variables)
    seen = [d for d in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    on_node = _whole(variables, "SLURM_GPUS_ON_NODE", "0")
    if tasks == 1 or 0 < len(seen) < on_node:  # SLURM bound each task to its own
        return []
    total = len(seen) or on_node
    if not total:
        return []
    if total % tasks:
        raise InputError(
            f"{tasks} tasks of this node share {total} GPUs; wanted one task a node, or as "
            "many as GPUs (--ntasks-per-node)"
        )
    share, place = total // tasks, _whole(variables, "SLURM_LOCALID")
    return list(range(place * share, (place + 1) * share))


def _tasks_here(variables: Mapping[str, str]) -> int:
    """Of this node, from SLURM's `2(x3),1`: two on three nodes, one on the fourth."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    said, node = variables.get(name, ""), _whole(variables, "SLURM_NODEID")
    for part in said.split(","):
        found = re.fullmatch(r"([1-9]\d{0,8})(?:\(x([1-9]\d{0,8})\))?", part.strip())
        if found is None:
            break
        nodes = int(found[2] or 1)
        if node < nodes:
            return int(found[1])
        node -= nodes
    raise InputError(
        f"{name} is {said!r} on node {variables['SLURM_NODEID']}; {_AS_SRUN_SETS_THEM}"
    )


def _whole(variables: Mapping[str, str], name: str, otherwise: str = "") -> int:
    said = variables.get(name) or otherwise
    if not re.fullmatch(r"\d{1,9}", said):
        raise InputError(f"{name} is {said!r}; {_AS_SRUN_SETS_THEM}")
    return int(said)


def _require_slurm(variables: Mapping[str, str]) -> None:
    """Refuses variables of which JAX needs others, or could not make sense."""
    needed = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
    numbers = {name: _whole(variables, name) for name in (*needed, "SLURM_NTASKS")}
    if numbers["SLURM_PROCID"] >= numbers["SLURM_NTASKS"]:
        raise InputError(
            f"SLURM_PROCID is {numbers['SLURM_PROCID']} of SLURM_NTASKS "
            f"{numbers['SLURM_NTASKS']}; {_AS_SRUN_SETS_THEM}"
        )
    hosts = variables["SLURM_STEP_NODELIST"]
    if not re.match(r"[\w.-]+(,|$|\[[\w.-]+)", hosts):
        raise InputError(f"SLURM_STEP_NODELIST is {hosts!r}; {_AS_SRUN_SETS_THEM}")


def first() -> bool:
    """Whether this is the process that writes for all: process 0."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def require_equal(text: str, message: str) -> None:
    """Refuses processes that were not started alike.

    Args:
      text: what should be the same everywhere.
      message: of the error.

    Raises:
      InputError: it is not.
    """
    if not several():
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    everywhere = np.asarray(multihost_utils.process_allgather(digest))
    if (everywhere != everywhere[:1]).any():
        raise InputError(message)


def first_decides(decide: Callable[[], str]) -> str:
    """What process 0 finds, in all of them; where it raises, all do, and none waits.

    All processes must ask at the same point. It is for what they could see differently,
    such as files on a network, or should look at only once, such as checksums.

    Args:
      decide: called in process 0 alone.

    Raises:
      InputError: process 0's; or, in the others, that it failed otherwise.
    """
    if not several():
        return decide()
    said: dict[str, str] = {}
    if first():
        try:
            said["found"] = decide()
        except InputError as error:
            said["refused"] = str(error)
        except BaseException as error:
            _told_by_first({"refused": f"process 0 failed: {error!r}; see its log"})
            raise
    said = _told_by_first(said)
    if "refused" in said:
        raise InputError(said["refused"])
    return said["found"]


def _told_by_first(said: dict[str, str]) -> dict[str, str]:
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = text if first() else np.zeros(length, np.uint8)
    text = np.asarray(multihost_utils.broadcast_one_to_all(text))
    return json.loads(text.tobytes())


def wait_for_all(where: str) -> None:
    """Returns once every process is here."""
    if several():
        multihost_utils.sync_global_devices(where)


def any_process(flags: Sequence[bool]) -> Bool[np.ndarray | jax.Array, " n"]:
    """Which flags some process has raised; all processes must ask at the same point.

    The answer is an array under way: whoever reads it waits for every process's question.
    With one process it is there at once, and no device is troubled.
    """
    mine = np.asarray(flags, bool)
    if not several():
        return mine
    sharding, reduce = _reduction()
    everywhere = jax.make_array_from_callback(
        (jax.device_count(), len(mine)), sharding, lambda _: mine[None]
    )
    return reduce(everywhere)


@functools.cache
def _reduction():
    # Over all devices, though one of each process would do: only programs that run on the
    # same devices are sure to exchange their messages in the same order everywhere.
    mesh = Mesh(np.array(jax.devices()), ("device",))
    whole = NamedSharding(mesh, PartitionSpec())
    reduce = jax.jit(lambda flags: flags.any(axis=0), out_shardings=whole)
    return NamedSharding(mesh, PartitionSpec("device")), reduce
