"""The device mesh and shardings.

pjit in today's JAX is `jax.jit` over arrays that carry a `NamedSharding`; parameters are
replicated over the mesh and batches split over its `data` axis. PyTC and BANIS wrap the
model in DistributedDataParallel instead and start one process for each GPU.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nisbjax.errors import InputError

DATA, SPACE = "data", "space"


def make_mesh(
    axes: Sequence[tuple[str, int]], devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh over all devices of all hosts.

    Args:
      axes: (name, size) pairs; one size may be -1 and takes the devices that are left.
      devices: all of them where None.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    names = tuple(name for name, _ in axes)
    sizes = [size for _, size in axes]
    fixed = int(np.prod([s for s in sizes if s != -1]))
    if sizes.count(-1) > 1 or fixed < 1 or len(devices) % fixed:
        raise InputError(
            f"train.mesh is {tuple(axes)} for {len(devices)} devices; wanted sizes that "
            "multiply to the number of devices, at most one of them -1"
        )
    sizes = [len(devices) // fixed if s == -1 else s for s in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise InputError(
            f"train.mesh {tuple(zip(names, sizes, strict=True))} needs "
            f"{int(np.prod(sizes))} devices; here are {len(devices)}"
        )
    return Mesh(np.array(devices).reshape(sizes), names)


def require_shares(batch: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices of the axis `data` cannot share.

    Raises:
      InputError: it is no multiple of them.
    """
    shards = mesh.shape[DATA]
    if batch % shards:
        raise InputError(
            f"the global batch is {batch} on {shards} devices; wanted a multiple of the "
            "devices"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis over the mesh's `data` axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def split_crops(mesh: Mesh) -> PartitionSpec:
    """Samples over the axis `data`, and the x axis of each over `space` where there is one.

    That is of crops after augmentation: the loader's batches are split over `data` alone.
    """
    return PartitionSpec(DATA, SPACE) if parts(mesh) > 1 else PartitionSpec(DATA)


def parts(mesh: Mesh) -> int:
    """Over how many devices a mesh splits a crop."""
    return mesh.shape.get(SPACE, 1)


def describe() -> str:
    """For the log: how many devices of what kind, on how many hosts."""
    kinds = sorted({d.device_kind for d in jax.devices()})
    said = ", ".join("CPU" if kind == "cpu" else kind for kind in kinds)
    hosts = jax.process_count()
    several = f" on {hosts} hosts" if hosts > 1 else ""
    return f"{jax.device_count()} x {said}{several}"
